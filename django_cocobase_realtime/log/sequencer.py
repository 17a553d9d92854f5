"""Sequencing: events get their number after commit, in a server process, never in the saver's.

Numbers given after commit have no gap that a slow transaction might still fill, so a reader that
has seen ``n`` has seen everything up to ``n``. Transactions are numbered one after the other, in
the order of each one's last event: a transaction that changed a row after another one began to
write only when the other had committed, so no row's changes are ever inverted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.models import Count, Max, QuerySet

from ..declarations.registry import UnknownCollection, registry
from ..events import Change
from ..utils.transactions import write_transaction
from .append import json_text
from .models import LogEvent, Stream
from .reader import FIELDS, change_from_row, read_events

BATCH_SIZE = 1000  # events numbered at a time, unless one transaction has more
BACKLOG_BATCH_SIZE = 10_000  # and when more than that wait


@dataclass(frozen=True, slots=True)
class SequenceResult:
    """A stream after sequencing: events ``start`` + 1 to ``head`` were numbered just now.

    ``more``: others still wait. ``changes`` are these events, None where they must be read.
    """

    epoch: str
    floor: int
    start: int
    head: int
    more: bool = False
    changes: list[Change] | None = None


def has_unsequenced(using: str, collection: str) -> bool:
    """Whether committed events wait for a number."""
    return LogEvent.objects.using(using).filter(collection=collection, seq=None).exists()


def sequence(using: str, collection: str, limit: int = BATCH_SIZE) -> SequenceResult:
    """Number what waits: about ``limit`` events, a transaction's always together.

    Two sequencers of one stream wait for each other at its row's lock. Raises database errors.
    """
    streams = Stream.objects.using(using)
    with write_transaction(using):
        stream = streams.select_for_update().filter(collection=collection).first()
        if stream is not None:
            return _sequence(using, stream, limit)
    streams.get_or_create(collection=collection)
    return sequence(using, collection, limit)


def _sequence(using: str, stream: Stream, limit: int) -> SequenceResult:
    collection, start = stream.collection, stream.head
    rows, more = _events_to_number(using, collection, limit)
    if not rows:
        return SequenceResult(stream.epoch, stream.floor, start, start, changes=[])
    head = start + len(rows)
    _number(using, [row[0] for row in rows], start + 1)
    Stream.objects.using(using).filter(pk=stream.pk).update(head=head)
    changes: list[Change] | None = None
    if not _store_documents(using, collection, stream.epoch, start) and len(rows[0]) > 1:
        numbers = range(start + 1, head + 1)
        numbered = zip(rows, numbers, strict=True)
        changes = [change_from_row(row, epoch=stream.epoch, seq=seq) for row, seq in numbered]
    return SequenceResult(stream.epoch, stream.floor, start, head, more, changes)


def _events_to_number(
    using: str, collection: str, limit: int
) -> tuple[list[tuple[Any, ...]], bool]:
    """What to number, transaction by transaction, and whether others were left for next time.

    Rows of ``read.FIELDS``, or of ids alone where there are too many to hold.
    """
    waiting = LogEvent.objects.using(using).filter(collection=collection, seq=None).order_by("id")
    found = list(waiting.values_list(*FIELDS)[: limit + 1])
    if len(found) <= limit:
        return _group_by_transaction([(row[2], row) for row in found]), False
    # a backlog: the last event of a transaction may lie far behind, so ask for whole ones
    names, more = _oldest_transactions(waiting)
    ids = waiting.filter(transaction_id__in=names).values_list("transaction_id", "id")
    return _group_by_transaction([(name, (id,)) for name, id in ids]), more


def _group_by_transaction(rows: list[tuple[str, tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    groups: dict[str, list[tuple[Any, ...]]] = {}
    for name, row in rows:
        # moved to the end at each event: transactions end up in the order of their last one
        group = groups.pop(name, [])
        group.append(row)
        groups[name] = group
    return [row for group in groups.values() for row in group]


def _oldest_transactions(waiting: QuerySet[LogEvent]) -> tuple[list[str], bool]:
    """Transactions with about `BACKLOG` events, and whether there are more of them."""
    groups = waiting.order_by().values("transaction_id").annotate(last=Max("id"), count=Count("id"))
    names: list[str] = []
    total = 0
    for group in groups.order_by("last")[: BACKLOG_BATCH_SIZE + 1]:
        if total >= BACKLOG_BATCH_SIZE:
            return names, True
        names.append(group["transaction_id"])
        total += group["count"]
    return names, False


def _number(using: str, ids: list[int], first: int) -> None:
    connection = connections[using]
    quote = connection.ops.quote_name
    table = quote(LogEvent._meta.db_table)
    numbers = range(first, first + len(ids))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # one round trip
            cursor.execute(
                f"UPDATE {table} SET seq = given.seq "  # noqa: S608 - our own table
                "FROM unnest(%s::bigint[], %s::bigint[]) AS given(id, seq) "
                f"WHERE {table}.id = given.id",
                [ids, list(numbers)],
            )
        else:
            sql = f"UPDATE {table} SET seq = %s WHERE id = %s"  # noqa: S608
            cursor.executemany(sql, list(zip(numbers, ids, strict=True)))


def _store_documents(using: str, name: str, epoch: str, start: int) -> bool:
    """Where a serializer makes the collection's documents, make them once, now; whether it does."""
    try:
        collection = registry.get(name)
    except UnknownCollection:
        return False
    if collection.serializer is None:
        return False
    rows = LogEvent.objects.using(using).filter(collection=name)
    while changes := read_events(using, name, epoch, start, BATCH_SIZE):
        for change in changes:
            text = json_text(collection.make_document(change, using))
            rows.filter(seq=change.seq).update(document=text)
        start += len(changes)
    return True
