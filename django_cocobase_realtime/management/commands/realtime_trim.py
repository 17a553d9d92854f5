"""``realtime_trim``: delete old changes from the log, and rooms that are not used any more."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...conf import conf
from ...declarations.registry import registry
from ...log.retention import trim
from ...rooms.retention import expire_presence, trim_history


class Command(BaseCommand):
    """Trims the log of all collections, presence and the history of rooms, for example from cron.

    Server processes do the same in the background, so the command is needed only without them, or
    to trim further.
    """

    help = (
        "Delete changes beyond LOG's MAX_AGE and MAX_EVENTS from the log, members of rooms whose "
        "server has ended, and the history of rooms beyond ROOM_MAX_AGE."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add bounds for this run."""
        parser.add_argument("--max-age", type=float, metavar="SECONDS")
        parser.add_argument("--max-events", type=int, metavar="N")
        parser.add_argument("--room-max-age", type=float, metavar="SECONDS")

    def handle(self, *args: Any, **options: Any) -> None:
        """Trim the log in each database that has a collection."""
        settings = conf.log
        for name in ("max_age", "max_events", "room_max_age"):
            if options[name] is not None and options[name] < 0:
                raise CommandError(f"--{name.replace('_', '-')} must not be below zero.")
        max_age, max_events, room_max_age = (
            getattr(settings, name) if options[name] is None else options[name]
            for name in ("max_age", "max_events", "room_max_age")
        )
        total = 0
        for using in sorted({collection.database for collection in registry}):
            for name, count in trim(using, max_age=max_age, max_events=max_events).items():
                self.stdout.write(f"{name}: {count} dropped")
                total += count
        self.stdout.write(f"{total} dropped in all.")
        expire_presence()
        histories = trim_history(room_max_age)
        if histories:
            self.stdout.write(f"{histories} histories of rooms dropped.")
