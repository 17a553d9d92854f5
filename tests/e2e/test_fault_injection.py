"""A short run of the fault injection benchmark."""

import subprocess
import sys

import pytest
from django.db import connections

from tests.support.servers import ROOT

pytestmark = pytest.mark.server


@pytest.mark.skipif(
    connections["default"].vendor != "postgresql",
    reason="Needs PostgreSQL.",
)
@pytest.mark.parametrize("capture", ["signals", "triggers"])
def test_no_event_is_lost_under_fault_injection(capture):
    options = ["--changes", "2500", "--every", "1.5"]
    command = [sys.executable, "-m", "benchmarks.fault_injection", *options]
    command += ["--triggers"] if capture == "triggers" else []
    completed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr[-3000:]
