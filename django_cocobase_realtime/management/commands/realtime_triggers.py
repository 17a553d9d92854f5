"""``realtime_triggers install|remove|status``: manage the triggers that write the log."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from ...capture.triggers import (
    by_triggers,
    install_all,
    is_installed,
    left_over,
    remove,
    remove_named,
    synchronize,
)
from ...declarations.capture_mode import TRIGGER_VENDORS, Captured, captured_by
from ...declarations.registry import UnknownCollection, registry


class Command(BaseCommand):
    """Manages triggers, which ``migrate`` also keeps up to date."""

    help = "Install, remove or show the triggers of collections that are captured by them."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add a subcommand for each action."""
        commands = parser.add_subparsers(dest="action", required=True)
        for action, action_help in (
            ("install", "Create or replace triggers; without names, also drop needless ones."),
            ("remove", "Drop triggers; without names, all that this app has created."),
            ("status", "Show which are installed and up to date; exit with 1 if one is not."),
        ):
            command = commands.add_parser(action, help=action_help)
            command.add_argument(
                "collections",
                nargs="*",
                help="Default: all collections, and the tables that they depend on.",
            )
            command.add_argument("--database", help="Only collections in this database.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the subcommand."""
        names, database = options["collections"], options["database"]
        if database is not None and database not in connections:
            raise CommandError(f"There is no database {database!r}.")
        # tables that a collection depends on may belong to others as well
        collections = self._collections(names, database, options["action"] != "remove")
        databases = [] if names else _databases(database)
        if not collections:
            self.stdout.write("No collection is captured by triggers.")
        try:
            getattr(self, f"_{options['action']}")(collections, databases)
        except DatabaseError as error:
            raise CommandError(str(error).strip()) from error

    def _install(self, collections: list[Captured], databases: list[str]) -> None:
        groups: dict[str, list[Captured]] = {using: [] for using in databases}
        for collection in collections:
            if captured_by(collection) != "triggers":
                raise CommandError(f"Collection {collection.name!r} is captured by signals.")
            vendor = connections[collection.database].vendor
            if vendor not in TRIGGER_VENDORS:
                raise CommandError(
                    f"Triggers need PostgreSQL or SQLite; {collection.name!r} is in {vendor}."
                )
            groups.setdefault(collection.database, []).append(collection)
        refused = []
        for using, group in groups.items():
            failures = dict((synchronize if databases else install_all)(using, group))
            for collection in group:
                if collection in failures:
                    refused.append(f"{collection.name}: {str(failures[collection]).strip()}")
                elif is_installed(collection):
                    self.stdout.write(f"{collection.name}: installed")
                else:
                    refused.append(f"{collection.name}: there is no table, or no log")
        if refused:
            raise CommandError("\n".join(refused))

    def _remove(self, collections: list[Captured], databases: list[str]) -> None:
        for collection in collections:
            was_installed = remove(collection)
            self.stdout.write(f"{collection.name}: {'removed' if was_installed else 'not there'}")
        for using in databases:
            if remove_named(using, left_over(using)):
                self.stdout.write(f"other collections in {using}: removed")

    def _status(self, collections: list[Captured], databases: list[str]) -> None:
        problems = False
        for collection in collections:
            is_wanted = captured_by(collection) == "triggers"
            is_current = is_installed(collection)
            state = "installed" if is_current else "missing or out of date"
            if not is_wanted:
                state += ", but captured by signals"
            problems = problems or not (is_wanted and is_current)
            self.stdout.write(f"{collection.name}: {state}")
        for using in databases:
            if left_over(using):
                problems = True
                self.stdout.write(f"other collections in {using}: installed, but not needed")
        if problems:
            raise CommandError("Run realtime_triggers install.", returncode=1)

    def _collections(
        self, names: list[str], database: str | None, with_dependencies: bool
    ) -> list[Captured]:
        try:
            named = [registry.get(name) for name in names]
        except UnknownCollection as error:
            raise CommandError(f"There is no collection {error.args[0]!r}.") from None
        wrong = [c.name for c in named if database not in (None, c.database)]
        if wrong:
            raise CommandError(f"Not in database {database!r}: {', '.join(wrong)}.")
        if named and not with_dependencies:
            return list(named)
        if named:
            return list(dict.fromkeys(c for one in named for c in registry.with_dependencies(one)))
        return [c for c in by_triggers() if database in (None, c.database)]


def _databases(database: str | None) -> list[str]:
    """Return the databases that may have triggers of collections that are not declared any more."""
    if database is not None:
        return [database]
    aliases = dict.fromkeys([DEFAULT_DB_ALIAS, *(c.database for c in registry)])
    return [alias for alias in aliases if connections[alias].vendor in TRIGGER_VENDORS]
