"""Numbering of events on SQLite, by one statement that also returns them.

The ORM needs six statements for this, and most of the time is spent in building them.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.db import connections

from ..models import LogEvent, Stream
from .decoding import FIELDS, Row

# versions of SQLite that have UPDATE ... FROM and RETURNING
MIN_VERSION = (3, 35)
# columns that SQLite's triggers copy, and that may not be valid UTF-8 (see `LoggedText`)
_BYTES = ("document_id", "before", "after")


@dataclass(frozen=True, slots=True)
class NumberedRows:
    """A stream as it was before its events were numbered, and the rows of these events."""

    epoch: str
    head: int
    floor: int
    # the events, in order of their numbers, with the columns ``FIELDS``
    rows: list[Row]


def is_supported(connection: Any) -> bool:
    """Return whether a database is SQLite and has the statements."""
    return bool(
        connection.vendor == "sqlite" and connection.Database.sqlite_version_info >= MIN_VERSION
    )


def number_rows(
    using: str, collection: str, limit: int, related: str | None = None
) -> NumberedRows | None:
    """Number all events of a stream that have no number, and return them.

    If there are any, the events of the stream ``related`` are numbered before them. Returns None,
    and does nothing, if there is no such stream, if there are more than ``limit`` events, or if
    only some of them have the id of a transaction. Must be called in a transaction that has the
    write lock.
    """
    connection: Any = connections[using]
    select, number, set_head = _statements(using)
    with connection.cursor() as cursor:
        cursor.execute(select, [collection, limit + 1, collection])
        stream = cursor.fetchone()
        if stream is None:
            return None
        id, epoch, head, floor, count, unnamed = stream
        if count > limit or unnamed not in (0, count):
            return None
        if not count:
            return NumberedRows(epoch, head, floor, [])
        related_seq = None
        if related is not None:
            hidden = number_rows(using, related, limit)
            if hidden is None:
                return None
            related_seq = hidden.head + len(hidden.rows)
        cursor.execute(number, [related_seq, uuid.uuid4().hex, head, collection])
        rows = sorted(cursor.fetchall(), key=_get_number)
        cursor.execute(set_head, [head + len(rows), id])
    zone = connection.timezone if settings.USE_TZ else None
    return NumberedRows(epoch, head, floor, [_decode(row, zone) for row in rows])


def _get_number(row: Row) -> int:
    number: int = row[1]
    return number


def _decode(row: Row, zone: Any) -> Row:
    """Return the values that a query of the ORM returns."""
    id, seq, transaction, collection, op, document_id, before, after, changed, *rest = row
    document, related, at, related_seq = rest
    created_at = at if isinstance(at, datetime) else datetime.fromisoformat(at)
    return (
        id,
        seq,
        transaction,
        collection,
        op,
        str(document_id, "utf-8", "replace"),
        None if before is None else str(before, "utf-8", "replace"),
        None if after is None else str(after, "utf-8", "replace"),
        changed,
        document,
        related,
        created_at if zone is None else created_at.replace(tzinfo=zone),
        related_seq,
    )


@lru_cache(maxsize=16)
def _statements(using: str) -> tuple[str, str, str]:
    """Return the statements that read a stream, number its events, and set its head."""
    quote = connections[using].ops.quote_name
    log, streams = (quote(model._meta.db_table) for model in (LogEvent, Stream))
    columns = ", ".join(f"CAST({name} AS BLOB)" if name in _BYTES else name for name in FIELDS)
    select = (
        "SELECT s.id, s.epoch, s.head, s.floor, count(w.transaction_id), "  # noqa: S608 - our tables
        f"coalesce(sum(w.transaction_id = ''), 0) FROM {streams} s LEFT JOIN "
        f"(SELECT transaction_id FROM {log} WHERE collection = %s AND seq IS NULL LIMIT %s) w "
        "WHERE s.collection = %s GROUP BY s.id"
    )
    # the transactions in the order of their last events, and the events of each in their order
    number = (
        f"UPDATE {log} SET seq = place.seq, related_seq = %s, "  # noqa: S608
        "transaction_id = coalesce(nullif(transaction_id, ''), %s) FROM ("
        "SELECT id, %s + row_number() OVER (ORDER BY last, id) AS seq FROM ("
        f"SELECT id, max(id) OVER (PARTITION BY transaction_id) AS last FROM {log} "
        "WHERE collection = %s AND seq IS NULL)"
        f") AS place WHERE {log}.id = place.id RETURNING {columns}"
    )
    return select, number, f"UPDATE {streams} SET head = %s WHERE id = %s"  # noqa: S608
