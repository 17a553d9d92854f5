"""The benchmark of windows runs, and counts reads and encoded frames."""

import json
import subprocess
import sys

from tests.support.servers import ROOT


def test_window_is_read_once_and_each_change_is_encoded_once():
    command = [sys.executable, "-m", "benchmarks.windows", "--quick", "--database", "sqlite"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert run.returncode == 0, run.stderr
    (row,) = json.loads(run.stdout.splitlines()[-1])
    assert (row["loads"], row["reads_to_start"], row["encoded_per_change"]) == (1, 1, 1)
    assert row["reads"] <= 0.02 * row["events"]
