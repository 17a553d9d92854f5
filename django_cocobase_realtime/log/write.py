"""Writing: one row an event, in the transaction of the row that changed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from django.db import connections, transaction
from django.utils import timezone

from ..database import CommitHook
from ..events import Change
from .models import LogEvent

_COLUMNS = (
    "collection",
    "transaction_id",
    "op",
    "document_id",
    "before",
    "after",
    "changed",
    "created_at",
)
ROWS = 100  # events of one statement
_json = msgspec.json.Encoder()


class Transaction:
    """One open database transaction: its id, and what it must do once it commits."""

    __slots__ = ("_hooks", "_marker", "count", "id")

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self.count = 0
        self._marker = CommitHook()
        self._hooks: dict[str, CommitHook] = {}

    @classmethod
    def current(cls, using: str) -> Transaction:
        """The connection's open transaction; in autocommit a new one each time."""
        connection: Any = transaction.get_connection(using)
        current: Transaction | None = getattr(connection, "_realtime_transaction", None)
        if current is None or not current._marker.is_pending(connection):
            current = connection._realtime_transaction = cls()
            current._marker.register(connection)
        return current

    def once_on_commit(self, using: str, key: str, call: Callable[[], object]) -> None:
        """Call once after the commit, however often it is asked for under this key."""
        connection: Any = transaction.get_connection(using)
        hook = self._hooks.get(key)
        if hook is None or not hook.is_pending(connection):
            hook = self._hooks[key] = CommitHook(call)
            hook.register(connection)


@lru_cache(maxsize=512)
def _insert(using: str, rows: int) -> str:
    connection = connections[using]
    quote = connection.ops.quote_name
    values = ["%s"] * len(_COLUMNS)
    if connection.vendor == "postgresql":
        # the database's own name for the transaction, which triggers use too
        values[1] = "pg_current_xact_id()::text"
    columns = ", ".join(quote(name) for name in _COLUMNS)
    table = quote(LogEvent._meta.db_table)
    one = f"({', '.join(values)})"
    return f"INSERT INTO {table} ({columns}) VALUES {', '.join([one] * rows)}"  # noqa: S608


@lru_cache(maxsize=16)
def _insert_arrays(using: str) -> str:
    """PostgreSQL: many events, a column of them an array, in their order."""
    quote = connections[using].ops.quote_name
    columns = ", ".join(quote(name) for name in _COLUMNS)
    given = [name for name in _COLUMNS if name not in ("transaction_id", "created_at")]
    arrays = ", ".join(["%s::text[]"] * len(given))
    named = ", ".join(quote(name) for name in given)
    chosen = ", ".join(quote(name) for name in given[1:])
    return (
        f"INSERT INTO {quote(LogEvent._meta.db_table)} ({columns}) "  # noqa: S608 - our own table
        f"SELECT {quote(given[0])}, pg_current_xact_id()::text, {chosen}, %s "
        f"FROM unnest({arrays}) WITH ORDINALITY AS given({named}, place) ORDER BY place"
    )


def append(using: str, changes: Sequence[Change]) -> None:
    """Log changes, in order, in the open transaction of ``using``. Raises database errors."""
    connection = connections[using]
    named = connection.vendor == "postgresql"
    at = connection.ops.adapt_datetimefield_value(timezone.now())
    rows = []
    for change in changes:
        row = [
            change.collection,
            change.transaction,
            change.op,
            change.document_id,
            json_text(change.before),
            json_text(change.after),
            json_text(change.changed),
            at,
        ]
        if named:
            del row[1]
        rows.append(row)
    with connection.cursor() as cursor:
        if named and len(rows) > 1:
            # one parameter a column: psycopg takes longer over many placeholders than the server
            columns = [list(column) for column in zip(*rows, strict=True)]
            cursor.execute(_insert_arrays(using), [at, *columns[:-1]])
            return
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            cursor.execute(_insert(using, len(part)), [value for row in part for value in row])


def json_text(value: Any) -> str | None:
    """JSON, None for None."""
    return None if value is None else _json.encode(value).decode()
