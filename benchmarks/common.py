"""Temporary databases and settings, and output, for the benchmarks."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any


def set_up(database: str, settings: str = "tests.settings") -> None:
    """Set up Django with the test project on a new, migrated database: sqlite or postgres."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped too
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    os.environ.setdefault("REALTIME_TEST_FOLDER", tempfile.mkdtemp(prefix="realtime-bench-"))
    if database == "postgres":
        os.environ["TEST_DATABASE"] = "postgres"
        os.environ["POSTGRES_FSYNC"] = "on"
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def run_for_each_database(module: str) -> list[dict[str, Any]]:
    """Run a benchmark once per database, in another process, and return its rows.

    The benchmark prints its rows as JSON on its last line. Exit if it fails.
    """
    rows: list[dict[str, Any]] = []
    for database in ("sqlite", "postgres"):
        name = f"benchmarks.{module}"
        command = [sys.executable, "-m", name, "--database", database, *sys.argv[1:]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("[{"):
                    rows += json.loads(line)
                else:
                    print_line(line.rstrip())
        if process.returncode:
            sys.exit(process.returncode)
    return rows


def percentile(values: Iterable[float], share: float) -> float:
    """Return the percentile by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def print_line(*words: object) -> None:
    print(*words, flush=True)
    sys.stdout.flush()
