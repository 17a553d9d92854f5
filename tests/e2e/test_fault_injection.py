"""Short runs of the fault injection benchmark."""

import subprocess
import sys

import pytest
from django.db import connections

from tests.support.servers import ROOT

pytestmark = pytest.mark.server


@pytest.mark.parametrize(
    "options", [["--triggers"], ["--no-redis"], []], ids=["triggers", "no redis", "signals"]
)
def test_no_event_is_lost_under_fault_injection(options):
    is_postgres = connections["default"].vendor == "postgresql"
    if not is_postgres and not options:
        pytest.skip("PostgreSQL covers this.")
    database = ["--database", "postgres" if is_postgres else "sqlite"]
    length = ["--changes", "2500" if is_postgres else "600", "--every", "1.5"]
    command = [sys.executable, "-m", "benchmarks.fault_injection", *database, *length, *options]
    completed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr[-3000:]
