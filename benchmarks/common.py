"""A database and settings for the commands in this folder: all their own, all temporary."""

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
    """Django with the test project, on a fresh and migrated database: sqlite or postgres."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are ended too
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    os.environ.setdefault("REALTIME_TEST_FOLDER", tempfile.mkdtemp(prefix="realtime-bench-"))
    if database == "postgres":
        os.environ["TEST_DATABASE"] = "postgres"
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def each_database(module: str) -> list[dict[str, Any]]:
    """Run a command of this folder once a database, in a process of its own; its rows.

    It prints them as JSON in its last line. Exits where it fails.
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
                    say(line.rstrip())
        if process.returncode:
            sys.exit(process.returncode)
    return rows


def percentile(values: Iterable[float], share: float) -> float:
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def say(*words: object) -> None:
    print(*words, flush=True)
    sys.stdout.flush()
