"""A short run of the chaos checker; the long one is a command."""

import subprocess
import sys

import pytest
from django.db import connections

from tests.support.servers import ROOT

pytestmark = pytest.mark.server


@pytest.mark.skipif(
    connections["default"].vendor != "postgresql",
    reason="Runs with PostgreSQL's part of the tests.",
)
@pytest.mark.parametrize("capture", ["signals", "triggers"])
def test_nothing_is_lost_while_everything_breaks(capture):
    options = ["--changes", "2500", "--every", "1.5"]
    command = [sys.executable, "-m", "benchmarks.fault_injection", *options]
    command += ["--triggers"] if capture == "triggers" else []
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
