"""``realtime_trim``: drop old changes from the log."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...conf import conf
from ...declarations.registry import registry
from ...log.retention import trim


class Command(BaseCommand):
    """Servers trim what they follow; this does all, from cron."""

    help = "Drop changes beyond LOG's MAX_AGE and MAX_EVENTS from the log."

    def add_arguments(self, parser: CommandParser) -> None:
        """Bounds for this run."""
        parser.add_argument("--max-age", type=float, metavar="SECONDS")
        parser.add_argument("--max-events", type=int, metavar="N")

    def handle(self, *args: Any, **options: Any) -> None:
        """Trim each database that has a collection."""
        settings = conf.log
        for name in ("max_age", "max_events"):
            if options[name] is not None and options[name] < 0:
                raise CommandError(f"--{name.replace('_', '-')} must not be below zero.")
        age = settings.max_age if options["max_age"] is None else options["max_age"]
        events = settings.max_events if options["max_events"] is None else options["max_events"]
        total = 0
        for using in sorted({collection.database for collection in registry}):
            for name, count in trim(using, max_age=age, max_events=events).items():
                self.stdout.write(f"{name}: {count} dropped")
                total += count
        self.stdout.write(f"{total} dropped in all.")
