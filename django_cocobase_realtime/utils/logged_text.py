"""The type of the log's columns that SQLite's triggers copy from other columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import models


class LoggedText(models.TextField):  # type: ignore[type-arg]
    """Text that SQLite's triggers copy from other columns, and that may not be valid UTF-8.

    SQLite stores whatever bytes a program writes. Python's driver refuses to read them as text.
    """

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        """Return the arguments of a text field: there is no difference for migrations."""
        name, _, args, options = super().deconstruct()
        return name, "django.db.models.TextField", args, options

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        """Select bytes on SQLite."""
        if compiler.connection.vendor == "sqlite":
            return f"CAST({sql} AS BLOB)", params
        return super().select_format(compiler, sql, params)

    def get_db_converters(self, connection: Any) -> list[Any]:
        """Decode bytes that SQLite returns."""
        return [_decoded] if connection.vendor == "sqlite" else []


def _decoded(value: bytes | None, expression: Any, connection: Any) -> str | None:
    return None if value is None else str(value, "utf-8", "replace")
