"""The reconnect storm in small: the benchmark itself, which fails where a client does."""

import os
import subprocess
import sys

import pytest

from tests.support.servers import ROOT

pytestmark = pytest.mark.server


def test_sixty_clients_come_back():
    own = {key: value for key, value in os.environ.items() if "REALTIME_TEST" not in key}
    own.pop("TEST_DATABASE", None)
    command = [sys.executable, "-m", "benchmarks.reconnect_storm"]
    ran = subprocess.run(
        [*command, "--clients=60", "--rounds=1", "--within=60"],
        cwd=ROOT,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("missed 0, twice 0, resyncs 0, failed 0") == 2
