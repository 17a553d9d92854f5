"""``realtime_rotate_epoch``: after a restored backup, make every old cursor ask for a resync."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...declarations.registry import UnknownCollection, registry
from ...log.retention import rotate_epoch


class Command(BaseCommand):
    """A restored database counts again where it had counted before: the numbers name others."""

    help = "Begin a new epoch of collections' streams; clients fetch afresh."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which collections."""
        parser.add_argument("collections", nargs="*", help="By default all of them.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate in each database that has one of them."""
        try:
            chosen = [registry.get(name) for name in options["collections"]] or list(registry)
        except UnknownCollection as error:
            raise CommandError(f"There is no collection {error.args[0]!r}.") from None
        for using in sorted({collection.database for collection in chosen}):
            names = [collection.name for collection in chosen if collection.database == using]
            for name in rotate_epoch(using, names):
                self.stdout.write(f"{name}: a new epoch")
