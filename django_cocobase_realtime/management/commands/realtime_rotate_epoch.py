"""``realtime_rotate_epoch``: make all cursors invalid after a backup was restored."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...declarations.capture_mode import Captured
from ...declarations.registry import UnknownCollection, registry
from ...log.retention import rotate_epoch


class Command(BaseCommand):
    """Gives streams a new epoch, so that clients cannot resume from cursors of the old one.

    This is necessary after a backup was restored, because new events then get numbers that other
    events had before.
    """

    help = "Begin a new epoch of collections' streams, so that clients fetch everything again."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the names of collections."""
        parser.add_argument("collections", nargs="*", help="Default: all collections.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate the epochs in each database that has one of the collections."""
        try:
            named: list[Captured] = [registry.get(name) for name in options["collections"]]
        except UnknownCollection as error:
            raise CommandError(f"There is no collection {error.args[0]!r}.") from None
        # without names, also of the tables that collections depend on
        chosen = named or registry.captured()
        for using in sorted({captured.database for captured in chosen}):
            names = [captured.stream for captured in chosen if captured.database == using]
            for name in rotate_epoch(using, names):
                self.stdout.write(f"{name}: a new epoch")
