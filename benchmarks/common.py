"""A database and settings for the commands in this folder: all their own, all temporary."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Iterable


def set_up(database: str, settings: str = "tests.settings") -> None:
    """Django with the test project, on a fresh and migrated database: sqlite or postgres."""
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    os.environ.setdefault("REALTIME_TEST_FOLDER", tempfile.mkdtemp(prefix="realtime-bench-"))
    if database == "postgres":
        os.environ["TEST_DATABASE"] = "postgres"
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def percentile(values: Iterable[float], share: float) -> float:
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def say(*words: object) -> None:
    print(*words, flush=True)
    sys.stdout.flush()
