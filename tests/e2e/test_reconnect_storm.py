"""A small run of the reconnect storm benchmark."""

import os
import subprocess
import sys

import pytest

from tests.support.servers import ROOT

pytestmark = pytest.mark.server


def test_sixty_clients_resume_after_server_restart():
    environment = {key: value for key, value in os.environ.items() if "REALTIME_TEST" not in key}
    environment.pop("TEST_DATABASE", None)
    command = [sys.executable, "-m", "benchmarks.reconnect_storm"]
    completed = subprocess.run(
        [*command, "--clients=60", "--rounds=1", "--within=60"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert completed.stdout.count("missed 0, twice 0, resyncs 0, failed 0") == 2
