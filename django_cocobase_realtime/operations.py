"""A migration operation, for projects that keep their triggers with their tables."""

from __future__ import annotations

from typing import Any

from django.db.migrations.operations.base import Operation

from .capture.triggers import install, remove
from .declarations.registry import registry


class RealtimeTriggers(Operation):
    """Install the trigger of a collection with ``capture = "triggers"``; removed backwards.

    ``operations = [RealtimeTriggers("orders")]``, in a migration that depends on this app's and
    on the one that made the table as it is. Databases other than PostgreSQL are left alone.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, collection: str) -> None:
        self.collection = collection

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Models stay as they are."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Install."""
        collection = registry.get(self.collection)
        if self._concerns(collection, schema_editor):
            install(collection)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Remove."""
        collection = registry.get(self.collection)
        if self._concerns(collection, schema_editor):
            remove(collection)

    @staticmethod
    def _concerns(collection: Any, schema_editor: Any) -> bool:
        connection = schema_editor.connection
        return bool(connection.vendor == "postgresql" and connection.alias == collection.database)

    def describe(self) -> str:
        """What ``migrate`` prints."""
        return f"Log changes of collection {self.collection} by a trigger"
