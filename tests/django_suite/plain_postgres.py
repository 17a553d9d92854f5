"""Lets Django's tests run on a PostgreSQL server without ICU and without contributed extensions.

The server that the project's tests bring has neither. Tests that need them fail unwatched, too.
"""

from typing import Any

from django.contrib.postgres.operations import CreateExtension
from django.db.backends.postgresql.features import DatabaseFeatures

# folders whose tables need extensions
UNSUPPORTED = {"postgres_tests"}


def adapt() -> None:
    """Name a collation that every server has, and skip extensions that this one does not have."""
    DatabaseFeatures.test_collations = dict.fromkeys(DatabaseFeatures.test_collations, "C")
    CreateExtension.extension_exists = _exists_or_is_unavailable


def _exists_or_is_unavailable(operation: Any, schema_editor: Any, extension: str) -> bool:
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT installed_version FROM pg_available_extensions WHERE name = %s", [extension]
        )
        row = cursor.fetchone()
    return row is None or row[0] is not None
