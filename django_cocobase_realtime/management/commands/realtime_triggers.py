"""``realtime_triggers install|remove|status``: manage the triggers that write the log."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...capture.triggers import by_triggers, install, is_installed, remove
from ...declarations.capture_mode import captured_by
from ...declarations.collection import Collection
from ...declarations.registry import UnknownCollection, registry


class Command(BaseCommand):
    """Manages triggers, which ``migrate`` also keeps up to date."""

    help = "Install, remove or show the triggers of collections that are captured by them."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add a subcommand for each action."""
        commands = parser.add_subparsers(dest="action", required=True)
        for action, action_help in (
            ("install", "Create or replace triggers."),
            ("remove", "Drop triggers."),
            ("status", "Show which are installed and up to date; exit with 1 if one is not."),
        ):
            command = commands.add_parser(action, help=action_help)
            command.add_argument("collections", nargs="*", help="Default: all collections.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the subcommand."""
        collections = self._collections(options["collections"])
        if not collections:
            self.stdout.write("No collection is captured by triggers.")
        stale = 0
        for collection in collections:
            if options["action"] == "install":
                try:
                    install(collection)
                except ValueError as error:
                    raise CommandError(str(error)) from None
                state = "installed"
            elif options["action"] == "remove":
                state = "removed" if remove(collection) else "not there"
            else:
                current = is_installed(collection)
                stale += not current
                state = "installed" if current else "missing or out of date"
            self.stdout.write(f"{collection.name}: {state}")
        if stale:
            raise CommandError("Run realtime_triggers install.", returncode=1)

    def _collections(self, names: list[str]) -> list[Collection]:
        if not names:
            return by_triggers()
        try:
            collections = [registry.get(name) for name in names]
        except UnknownCollection as error:
            raise CommandError(f"There is no collection {error.args[0]!r}.") from None
        for collection in collections:
            if captured_by(collection) != "triggers":
                raise CommandError(f"Collection {collection.name!r} is captured by signals.")
        return collections
