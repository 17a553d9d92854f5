"""Encoding and inserting of events as rows of the log, and decoding of rows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from django.db import connections, transaction
from django.utils import timezone
from msgspec import Raw

from ..events import Change
from ..models import LogEvent
from ..utils.json_text import encode_json
from ..utils.transactions import CommitHook, is_transaction_open

MAX_ROWS = 100  # events written by one statement, on databases other than PostgreSQL
# columns that an appended event sets, in the order of `_values`
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


class Transaction:
    """An open database transaction, with an id and functions that are called after its commit."""

    __slots__ = ("_block", "_hooks", "connection", "count", "id", "last_rows", "streams")

    def __init__(self, connection: Any, block: object) -> None:
        # on PostgreSQL the database has its own name for it (see `_insert_sql`)
        self.id = uuid.uuid4().hex
        # Django's database connection
        self.connection = connection
        # number of changes that were recorded in the transaction
        self.count = 0
        # rows in several tables as they were last recorded, by table and identity
        self.last_rows: dict[Any, Any] = {}
        # streams whose new events are announced on commit
        self.streams: dict[str, None] = {}
        # the outermost atomic block; None if the project manages transactions by hand
        self._block = block
        # hook by the key of `once_on_commit`
        self._hooks: dict[str, CommitHook] = {}

    @classmethod
    def current(cls, using: str) -> Transaction:
        """Return the open transaction of a database; without one, return a new object per call."""
        connection: Any = transaction.get_connection(using)
        # an atomic block within a transaction that is managed by hand is part of it
        in_block = connection.atomic_blocks and connection.commit_on_exit
        block = connection.atomic_blocks[0] if in_block else None
        current: Transaction | None = getattr(connection, "_realtime_transaction", None)
        if current is None or current._block is not block or connection.get_autocommit():
            current = connection._realtime_transaction = cls(connection, block)
        return current

    @staticmethod
    def forget_finished(using: str) -> None:
        """Notice that a transaction ended without a call of Django's: by SQL, or a lost connection.

        Called before a statement: if no transaction is open, the statement begins a new one.
        """
        connection: Any = transaction.get_connection(using)
        if connection.in_atomic_block and connection.commit_on_exit:
            return  # Django manages the transaction
        if connection.vendor in ("sqlite", "postgresql") and not is_transaction_open(connection):
            Transaction.forget(connection)

    @staticmethod
    def forget(connection: Any) -> None:
        """Begin a new transaction with the next change on a database connection."""
        connection._realtime_transaction = None

    def once_on_commit(self, key: str, call: Callable[[], object]) -> None:
        """Call ``call`` after the commit, once even if this method is called again with the key."""
        hook = self._hooks.get(key)
        if hook is None or not hook.is_pending(self.connection):
            hook = self._hooks[key] = CommitHook(call)
            hook.register(self.connection)


def append(connection: Any, changes: Sequence[Change]) -> None:
    """Insert changes into the log, in order, in the connection's open transaction.

    Raises the exceptions of the database.
    """
    using = connection.alias
    created_at = connection.ops.adapt_datetimefield_value(timezone.now())
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
            text = json_text(document)
            if "\\u0000" not in str(text):  # PostgreSQL refuses to parse a text with NUL
                cursor.execute(_insert_json_sql(using), [created_at, text])
                return
        # on PostgreSQL, the statement contains the id of the transaction, see `_insert_sql`
        with_id = connection.vendor != "postgresql"
        for start in range(0, len(changes), MAX_ROWS):
            part = changes[start : start + MAX_ROWS]
            values = [
                value for change in part for value in _values(change, created_at, with_id=with_id)
            ]
            cursor.execute(_insert_sql(using, len(part)), values)


@lru_cache(maxsize=512)
def _insert_sql(using: str, rows: int) -> str:
    """Return the statement that inserts a number of rows with the columns ``_COLUMNS``."""
    connection = connections[using]
    quote = connection.ops.quote_name
    values = ["%s"] * len(_COLUMNS)
    if connection.vendor == "postgresql":
        # the database's own id of the transaction, which triggers use as well
        values[1] = "pg_current_xact_id()::text"
    columns = ", ".join(quote(name) for name in _COLUMNS)
    table = quote(LogEvent._meta.db_table)
    row = f"({', '.join(values)})"
    return f"INSERT INTO {table} ({columns}) VALUES {', '.join([row] * rows)}"  # noqa: S608


@lru_cache(maxsize=16)
def _insert_json_sql(using: str) -> str:
    """Return the statement that inserts many events on PostgreSQL, from one JSON array.

    All events are one parameter, because psycopg needs more time for many parameters, or for
    arrays of PostgreSQL, than the server for the whole statement.
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


def _values(change: Change, created_at: Any, *, with_id: bool) -> list[Any]:
    """Return the values of the columns ``_COLUMNS``, without the transaction's id if not needed."""
    values = [
        change.collection,
        change.transaction,
        change.op,
        change.document_id,
        json_text(change.before),
        json_text(change.after),
        json_text(change.changed),
        created_at,
    ]
    if not with_id:
        del values[1]
    return values


def insert_numbered(
    connection: Any,
    changes: Sequence[Change],
    created_at: datetime,
    column: str,
    texts: Sequence[str | None],
) -> None:
    """Insert updates of one stream and transaction, which have numbers already.

    Their images before and after the update are the same. ``texts`` are the values of ``column``.
    Raises the exceptions of the database.
    """
    if not changes:
        return
    first = changes[0]
    same = [
        first.collection,
        first.transaction,
        first.op,
        first.related_seq,
        connection.ops.adapt_datetimefield_value(created_at),
    ]
    rows = [
        (
            change.seq,
            change.document_id,
            None if change.before is None else image,
            image,
            json_text(change.changed),
            text,
        )
        for change, text in zip(changes, texts, strict=True)
        for image in [json_text(change.after)]
    ]
    quote = connection.ops.quote_name
    names = ["collection", "transaction_id", "op", "related_seq", "created_at"]
    names += ["seq", "document_id", "before", "after", "changed", column]
    insert = f"INSERT INTO {quote(LogEvent._meta.db_table)} ({', '.join(map(quote, names))})"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # one parameter, see `_insert_json_sql`
            document = [
                [seq, id, *(None if text is None else Raw(text.encode()) for text in others)]
                for seq, id, *others in rows
            ]
            text = json_text(document)
            if "\\u0000" not in str(text):
                texts_of_row = ", ".join(
                    f"nullif((row -> {place})::text, 'null')" for place in range(2, 6)
                )
                cursor.execute(
                    f"{insert} SELECT %s, %s, %s, %s::bigint, %s::timestamptz, "  # noqa: S608
                    f"(row ->> 0)::bigint, row ->> 1, {texts_of_row} "
                    "FROM json_array_elements(%s::json) row",
                    [*same, text],
                )
                return
        values = ", ".join(["%s"] * len(names))
        cursor.executemany(f"{insert} VALUES ({values})", [(*same, *row) for row in rows])


def json_text(value: Any) -> str | None:
    """Return a value as JSON, or None for None."""
    return None if value is None else encode_json(value).decode()
