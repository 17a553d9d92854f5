"""Numbering of events, which a server process does after their commit.

If numbers were assigned before the commit, there would be gaps that a slow transaction may still
fill. After the commit there are no such gaps, so a reader that has seen number *n* has seen all
events up to *n*.

Transactions are numbered one after the other, in the order of their last events. If two
transactions change the same row, the second one waits until the first has committed, so the
changes of a row keep their order.

Events of a collection whose permissions depend on other tables are numbered together with the
hidden stream of these tables, and get its head: readers deliver them only after that event of the
hidden stream. Nothing prevents commits between two statements, so what is read first is numbered
last. All events of the hidden stream that were committed before one that is read are then among
those numbered before it.

SQLite's triggers do not know the transaction. Its transactions write one after the other, so the
order of their events is that of the commits, and all that are found together get one id.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import connections
from django.db.models import OuterRef, QuerySet

from ..declarations.dependency_table import hidden_stream
from ..declarations.registry import UnknownCollection, registry
from ..events import Change
from ..models import LogEvent, Stream
from ..utils.transactions import write_transaction
from . import sqlite_numbering
from .decoding import FIELDS, Row, changes_from_rows
from .stored_values import collection_with_values, store_values

BATCH_SIZE = 1000  # events numbered in one transaction
# the same, if more than `BATCH_SIZE` have no number; up to five times as many if very many have
# none, since all of them are examined each time
BACKLOG_BATCH_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class SequenceResult:
    """The result of `sequence`, which has numbered the events ``start`` + 1 to ``head``."""

    epoch: str
    # number of the last event that was deleted
    floor: int
    # number of the last event before the call
    start: int
    # number of the last event
    head: int
    # whether there are more events without a number
    more: bool = False
    # the events that were numbered, None if they are too many to keep in memory
    changes: list[Change] | None = None


def has_unsequenced(using: str, collection: str) -> bool:
    """Return whether there are committed events without a number."""
    return unsequenced(using, collection).values_list("id").first() is not None


def unsequenced(using: str, collection: str | OuterRef) -> QuerySet[LogEvent]:
    """Return the events of a stream that have no number, in the order of their ids.

    The range of names and the order are those of the index of these events, and of no other one.
    With equality and the order of the ids alone, PostgreSQL may search the index of all ids, or the
    whole log, because old statistics say that an event without a number is found soon.
    """
    events = LogEvent.objects.using(using).filter(seq=None)
    events = events.filter(collection__gte=collection, collection__lte=collection)
    return events.order_by("collection", "id")


def sequence(using: str, collection: str, limit: int = BATCH_SIZE) -> SequenceResult:
    """Number about ``limit`` events of a stream, and always all events of a transaction.

    The row of the stream is locked, so that processes number one after the other. Raises the
    exceptions of the database.
    """
    related = related_stream(using, collection)
    names = [collection] if related is None else [collection, related]
    streams = Stream.objects.using(using)
    with write_transaction(using):
        if sqlite_numbering.is_supported(connections[using]):
            numbered = sqlite_numbering.number_rows(using, collection, limit, related)
            if numbered is not None:
                return _describe(using, collection, numbered)
        rows = streams.select_for_update().filter(collection__in=names).order_by("collection")
        locked = {stream.collection: stream for stream in rows}
        if len(locked) == len(names):
            hidden = None if related is None else locked[related]
            return _sequence(using, locked[collection], limit, hidden)
    for name in names:
        streams.get_or_create(collection=name)
    return sequence(using, collection, limit)


def related_stream(using: str, collection: str) -> str | None:
    """Return the hidden stream whose head the events of a stream get; None without dependencies."""
    try:
        depends = registry.get(collection).dependencies
    except UnknownCollection:
        return None
    return hidden_stream(using) if depends else None


def number_waiting(using: str, stream: Stream, related: Stream | None) -> bool:
    """Number the events of a stream whose row is locked; return False if there are more.

    ``related`` is its hidden stream, whose row is locked as well.
    """
    return not _sequence(using, stream, BATCH_SIZE, related).more


def _describe(
    using: str, collection: str, numbered: sqlite_numbering.NumberedRows
) -> SequenceResult:
    """Return the result for rows that were numbered; store the values that are made."""
    epoch, start = numbered.epoch, numbered.head
    changes: list[Change] = []
    if numbered.rows:
        seqs = [row[1] for row in numbered.rows]
        changes = changes_from_rows(using, numbered.rows, epoch=epoch, seqs=seqs)
        shown = collection_with_values(collection)
        if shown is not None:
            changes = store_values(using, shown, changes)
    return SequenceResult(epoch, numbered.floor, start, start + len(changes), changes=changes)


def _sequence(using: str, stream: Stream, limit: int, hidden: Stream | None) -> SequenceResult:
    start = stream.head
    rows, more = _events_to_number(using, stream.collection, limit)
    related_seq = None
    if rows and hidden is not None:
        hidden_rows, must_wait = _events_to_number(using, hidden.collection, limit)
        _number_rows(using, hidden, hidden_rows, None)
        if must_wait:
            return SequenceResult(stream.epoch, stream.floor, start, start, more=True, changes=[])
        related_seq = hidden.head
    if not rows:
        return SequenceResult(stream.epoch, stream.floor, start, start, changes=[])
    rows = _number_rows(using, stream, rows, related_seq)
    changes: list[Change] | None = None
    if len(rows[0]) > 1:
        seqs = range(start + 1, stream.head + 1)
        changes = changes_from_rows(using, rows, epoch=stream.epoch, seqs=seqs)
    collection = collection_with_values(stream.collection)
    if collection is not None:
        if changes is not None:
            changes = store_values(using, collection, changes)
        else:
            for batch in _read_numbered(using, stream, start, stream.head):
                store_values(using, collection, batch)
    return SequenceResult(stream.epoch, stream.floor, start, stream.head, more, changes)


def _number_rows(using: str, stream: Stream, rows: list[Row], related_seq: int | None) -> list[Row]:
    """Number rows in order, set the stream's head, and return the rows as they are then."""
    start = stream.head
    if not rows:
        return rows
    # SQLite's triggers do not know the transaction: what is numbered together gets one id
    transaction = uuid.uuid4().hex
    if len(rows[0]) > 1:
        rows = [(*row[:2], row[2] or transaction, *row[3:-1], related_seq) for row in rows]
    _number(using, [row[0] for row in rows], start + 1, transaction, related_seq)
    stream.head = start + len(rows)
    Stream.objects.using(using).filter(pk=stream.pk).update(head=stream.head)
    return rows


def _events_to_number(using: str, collection: str, limit: int) -> tuple[list[Row], bool]:
    """Return the rows to number, in order, and whether there are more.

    A row has the columns ``FIELDS``, or only the id if there are more than ``limit`` rows.
    """
    waiting = unsequenced(using, collection)
    rows = list(waiting.values_list(*FIELDS)[: limit + 1])
    transactions = {row[2] for row in rows}
    if "" in transactions and (len(transactions) > 1 or len(rows) > limit):
        _name_transactions(waiting)
        rows = list(waiting.values_list(*FIELDS)[: limit + 1])
    if len(rows) <= limit:
        return _group_by_transaction([(row[2], row) for row in rows]), False
    ids, more = _first_transactions(waiting)
    return _group_by_transaction([(transaction, (id,)) for transaction, id in ids]), more


def _name_transactions(waiting: QuerySet[LogEvent]) -> None:
    """Give an id to transactions of SQLite's triggers, which do not know it.

    Events get the same id if there are none with another id between them. If all events are such
    ones, `_number` does this.
    """
    unnamed, named = waiting.filter(transaction_id=""), waiting.exclude(transaction_id="")
    while (first := unnamed.values_list("id", flat=True).first()) is not None:
        run = unnamed
        following = named.filter(id__gt=first).values_list("id", flat=True).first()
        if following is not None:
            run = run.filter(id__lt=following)
        run.order_by().update(transaction_id=uuid.uuid4().hex)


def _group_by_transaction(rows: list[tuple[str, Row]]) -> list[Row]:
    """Return rows grouped by transaction, in the order of the transactions' last rows.

    ``rows`` are pairs of a transaction's id and a row.
    """
    groups: dict[str, list[Row]] = {}
    for transaction, row in rows:
        # removed and inserted again at the end, so that the order is that of the last rows
        group = groups.pop(transaction, [])
        group.append(row)
        groups[transaction] = group
    return [row for group in groups.values() for row in group]


def _first_transactions(waiting: QuerySet[LogEvent]) -> tuple[list[tuple[str, int]], bool]:
    """Return the first transactions, which have about `BACKLOG_BATCH_SIZE` events in all.

    The result are pairs of a transaction's id and an event's id, and whether there are more. The
    transactions that are complete among the first events are the first in the order of their last
    events. More of the first events are examined if few are left, because a transaction is long.
    """
    smallest = BACKLOG_BATCH_SIZE
    size = min(max(waiting[: 40 * smallest].count() // 8, smallest), 5 * smallest)
    while True:
        ids = list(waiting.values_list("transaction_id", "id")[:size])
        if len(ids) < size:
            return ids, False
        incomplete = _incomplete_transactions(waiting, *ids[-1])
        complete = [(transaction, id) for transaction, id in ids if transaction not in incomplete]
        if len(complete) >= BACKLOG_BATCH_SIZE / 2:
            return complete, True
        size *= 4


def _incomplete_transactions(
    waiting: QuerySet[LogEvent], last_transaction: str, last_id: int
) -> set[str]:
    """Return which transactions with events up to an id also have later ones."""
    later = waiting.filter(id__gt=last_id)
    if connections[waiting.db].vendor == "sqlite":  # its transactions write one after the other
        following = later.values_list("transaction_id", flat=True).first()
        return {last_transaction} if following == last_transaction else set()
    examined = waiting.filter(id__lte=last_id).order_by().values("transaction_id")
    same = later.filter(transaction_id__in=examined).order_by()
    return set(same.values_list("transaction_id", flat=True).distinct())


def _number(
    using: str, ids: list[int], first: int, transaction: str, related_seq: int | None
) -> None:
    """Assign consecutive numbers to events, in the order of ``ids``, beginning with ``first``.

    Events without the id of their transaction get the id ``transaction``. All get ``related_seq``.
    """
    connection = connections[using]
    quote = connection.ops.quote_name
    table = quote(LogEvent._meta.db_table)
    numbers = range(first, first + len(ids))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # one round trip
            cursor.execute(
                f"UPDATE {table} SET seq = given.seq, related_seq = %s "  # noqa: S608 - our own table
                "FROM unnest(%s::bigint[], %s::bigint[]) AS given(id, seq) "
                f"WHERE {table}.id = given.id",
                [related_seq, ids, list(numbers)],
            )
        else:
            cursor.executemany(
                f"UPDATE {table} SET seq = %s, related_seq = %s, "  # noqa: S608 - our own table
                "transaction_id = coalesce(nullif(transaction_id, ''), %s) WHERE id = %s",
                [
                    (number, related_seq, transaction, id)
                    for number, id in zip(numbers, ids, strict=True)
                ],
            )


def _read_numbered(using: str, stream: Stream, start: int, head: int) -> Iterator[list[Change]]:
    """Yield the events ``start`` + 1 to ``head`` in batches."""
    events = LogEvent.objects.using(using).filter(collection=stream.collection).order_by("seq")
    for after in range(start, head, BATCH_SIZE):
        rows = events.filter(seq__gt=after, seq__lte=min(after + BATCH_SIZE, head))
        read = list(rows.values_list(*FIELDS))
        yield changes_from_rows(using, read, epoch=stream.epoch, seqs=[row[1] for row in read])
