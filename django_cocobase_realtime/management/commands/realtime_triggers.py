"""``realtime_triggers install|remove|status``: PostgreSQL triggers that write the log."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...capture.triggers import by_triggers, install, is_installed, remove
from ...declarations.collection import Collection
from ...declarations.registry import UnknownCollection, registry


class Command(BaseCommand):
    """Run ``install`` after each migration that changes a watched table."""

    help = 'Install, remove or show the triggers of collections with capture = "triggers".'

    def add_arguments(self, parser: CommandParser) -> None:
        """One sub-command each."""
        commands = parser.add_subparsers(dest="action", required=True)
        for action, about in (
            ("install", "Create or replace them."),
            ("remove", "Drop them."),
            ("status", "Tell which are installed and up to date; exit 1 where one is not."),
        ):
            command = commands.add_parser(action, help=about)
            command.add_argument("collections", nargs="*", help="By default all of them.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the sub-command."""
        collections = self._chosen(options["collections"])
        if not collections:
            self.stdout.write('No collection has capture = "triggers".')
        stale = 0
        for collection in collections:
            if options["action"] == "install":
                try:
                    install(collection)
                except ValueError as error:
                    raise CommandError(str(error)) from None
                word = "installed"
            elif options["action"] == "remove":
                word = "removed" if remove(collection) else "not there"
            else:
                current = is_installed(collection)
                stale += not current
                word = "installed" if current else "missing or out of date"
            self.stdout.write(f"{collection.name}: {word}")
        if stale:
            raise CommandError("Run realtime_triggers install.", returncode=1)

    def _chosen(self, names: list[str]) -> list[Collection]:
        if not names:
            return by_triggers()
        try:
            chosen = [registry.get(name) for name in names]
        except UnknownCollection as error:
            raise CommandError(f"There is no collection {error.args[0]!r}.") from None
        for collection in chosen:
            if collection.capture != "triggers":
                raise CommandError(f"Collection {collection.name!r} is captured by signals.")
        return chosen
