"""Writing: one row an event, in the transaction of the row that changed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from django.db import connections, transaction
from django.utils import timezone

from ..events import Change
from ..utils.transactions import CommitHook
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
MAX_ROWS = 100  # events of one statement
_json = msgspec.json.Encoder()


class Transaction:
    """One open database transaction: its id, and what it must do once it commits."""

    __slots__ = ("_hooks", "_marker", "connection", "count", "id")

    def __init__(self, connection: Any) -> None:
        self.id = uuid.uuid4().hex
        self.connection = connection
        self.count = 0
        self._marker = CommitHook()
        self._hooks: dict[str, CommitHook] = {}

    @classmethod
    def current(cls, using: str) -> Transaction:
        """The connection's open transaction; in autocommit a new one each time."""
        connection: Any = transaction.get_connection(using)
        current: Transaction | None = getattr(connection, "_realtime_transaction", None)
        if current is None or not current._marker.is_pending(connection):
            current = connection._realtime_transaction = cls(connection)
            current._marker.register(connection)
        return current

    def once_on_commit(self, key: str, call: Callable[[], object]) -> None:
        """Call once after the commit, however often it is asked for under this key."""
        hook = self._hooks.get(key)
        if hook is None or not hook.is_pending(self.connection):
            hook = self._hooks[key] = CommitHook(call)
            hook.register(self.connection)


@lru_cache(maxsize=512)
def _insert_sql(using: str, rows: int) -> str:
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
def _insert_json_sql(using: str) -> str:
    """PostgreSQL: many events, in their order, as one JSON document.

    One parameter: psycopg takes longer over many, and over arrays, than the server over all else.
    """
    quote = connections[using].ops.quote_name
    columns = ", ".join(quote(name) for name in _COLUMNS)
    return (
        f"INSERT INTO {quote(LogEvent._meta.db_table)} ({columns}) "  # noqa: S608 - our own table
        "SELECT c, pg_current_xact_id()::text, o, d, b::text, a::text, h::text, %s "
        "FROM ROWS FROM (json_to_recordset(%s::json) AS "
        "(c text, o text, d text, b json, a json, h json)) WITH ORDINALITY "
        "AS given(c, o, d, b, a, h, place) ORDER BY place"
    )


def append(connection: Any, changes: Sequence[Change]) -> None:
    """Log changes, in order, in the connection's open transaction. Raises database errors."""
    using = connection.alias
    at = connection.ops.adapt_datetimefield_value(timezone.now())
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql" and len(changes) > 1:
            document = [
                {
                    "c": change.collection,
                    "o": change.op,
                    "d": change.document_id,
                    "b": change.before,
                    "a": change.after,
                    "h": change.changed,
                }
                for change in changes
            ]
            cursor.execute(_insert_json_sql(using), [at, json_text(document)])
            return
        named = connection.vendor == "postgresql"
        for start in range(0, len(changes), MAX_ROWS):
            part = changes[start : start + MAX_ROWS]
            values = [value for change in part for value in _values(change, at, named=named)]
            cursor.execute(_insert_sql(using, len(part)), values)


def _values(change: Change, at: Any, *, named: bool) -> list[Any]:
    """Values of ``_COLUMNS``; ``named``: the database itself names the transaction."""
    values = [
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
        del values[1]
    return values


def json_text(value: Any) -> str | None:
    """JSON, None for None."""
    return None if value is None else _json.encode(value).decode()
