"""A migration operation, for projects that install triggers by migrations."""

from __future__ import annotations

from typing import Any

from django.db.migrations.operations.base import Operation

from .capture.triggers import install_all, install_sql, is_migrating, removal_sql, remove
from .declarations.capture_mode import TRIGGER_VENDORS, Captured, captured_by
from .declarations.collection import Collection
from .declarations.registry import registry


class RealtimeTriggers(Operation):
    """Install the triggers of a collection with ``capture = "triggers"``.

    The same for the tables that it depends on. Applied backwards, these are kept.

    Write ``operations = [RealtimeTriggers("orders")]`` in a migration that depends on those of
    this app, and on the last one that changed the table. Applied backwards, it removes the
    triggers. It does nothing on databases other than PostgreSQL and SQLite.

    ``migrate`` keeps triggers up to date without it, after it has applied all migrations. So the
    operation itself does something only if migrations are applied in another way.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, collection: str) -> None:
        self.collection = collection

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Do nothing: the models stay the same."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Install the triggers."""
        collection = self._collection_in(schema_editor.connection)
        if collection is None:
            return
        wanted = [
            captured
            for captured in registry.with_dependencies(collection)
            if captured is collection or captured_by(captured) == "triggers"
        ]
        if schema_editor.collect_sql:
            for captured in wanted:
                self._collect(schema_editor, install_sql, captured)
            return
        for _, error in install_all(collection.database, wanted):
            raise error

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Remove the triggers."""
        collection = self._collection_in(schema_editor.connection)
        if collection is None:
            return
        if schema_editor.collect_sql:
            self._collect(schema_editor, removal_sql, collection)
            return
        remove(collection)

    def _collection_in(self, connection: Any) -> Collection | None:
        """Return the collection if there is something to do in a database."""
        if connection.vendor not in TRIGGER_VENDORS or is_migrating(connection.alias):
            return None
        collection = registry.get(self.collection)
        return collection if collection.database == connection.alias else None

    def _collect(self, schema_editor: Any, statements_of: Any, captured: Captured) -> None:
        """Add statements to what ``sqlmigrate`` prints."""
        try:
            for statement in statements_of(captured):
                schema_editor.execute(statement, params=None)
        except LookupError as error:
            schema_editor.collected_sql.append(f"-- Run realtime_triggers install later: {error}")

    def describe(self) -> str:
        """Return the description that ``migrate`` prints."""
        return f"Log changes of collection {self.collection} by triggers"
