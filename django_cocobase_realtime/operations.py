"""A migration operation, for projects that install triggers by migrations."""

from __future__ import annotations

from typing import Any

from django.db.migrations.operations.base import Operation

from .capture.triggers import install, remove
from .declarations.capture_mode import TRIGGER_VENDORS
from .declarations.registry import registry


class RealtimeTriggers(Operation):
    """Install the triggers of a collection with ``capture = "triggers"``.

    Write ``operations = [RealtimeTriggers("orders")]`` in a migration that depends on those of
    this app, and on the last one that changed the table. Applied backwards, it removes the
    triggers. It does nothing on databases other than PostgreSQL and SQLite. ``migrate`` keeps
    triggers up to date without it.
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
        collection = registry.get(self.collection)
        if self._applies_to(collection, schema_editor):
            install(collection)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Remove the triggers."""
        collection = registry.get(self.collection)
        if self._applies_to(collection, schema_editor):
            remove(collection)

    @staticmethod
    def _applies_to(collection: Any, schema_editor: Any) -> bool:
        connection = schema_editor.connection
        return bool(
            connection.vendor in TRIGGER_VENDORS and connection.alias == collection.database
        )

    def describe(self) -> str:
        """Return the description that ``migrate`` prints."""
        return f"Log changes of collection {self.collection} by triggers"
