"""Count the statements of all threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.backends.utils import CursorWrapper


class Statements(list[str]):
    """The statements that were executed, without those that begin or end transactions."""

    def of(self, *tables: str) -> list[str]:
        """Return the statements that read one of these tables."""
        return [sql for sql in self if any(f'FROM "{table}"' in sql for table in tables)]


@contextmanager
def recorded_statements() -> Iterator[Statements]:
    """Record what Django executes in this process, in any thread.

    Queries of PostgreSQL's catalog are left out, of which a process keeps the results.
    """
    statements = Statements()
    execute = CursorWrapper._execute

    def record(self: Any, sql: Any, params: Any, *ignored: Any) -> Any:
        if "pg_attribute" not in str(sql):
            statements.append(str(sql))
        return execute(self, sql, params, *ignored)

    CursorWrapper._execute = record
    try:
        yield statements
    finally:
        CursorWrapper._execute = execute
