"""Sequencing: events get their number after commit, in a server process, never in the saver's.

Numbers given after commit have no gap that a slow transaction might still fill, so a reader that
has seen ``n`` has seen everything up to ``n``. Transactions are numbered one after the other, in
the order of each one's last event: a transaction that changed a row after another one began to
write only when the other had committed, so no row's changes are ever inverted.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connections
from django.db.models import Count, Max, QuerySet

from ..database import write_transaction
from ..registry import UnknownCollection, registry
from .models import LogEvent, Stream
from .read import page
from .write import json_text

BATCH = 1000  # events numbered at a time, unless one transaction has more
BACKLOG = 10_000  # and when more than that wait


@dataclass(frozen=True, slots=True)
class Numbered:
    """A stream after sequencing: events ``start`` + 1 to ``head`` were numbered just now.

    ``more``: others still wait.
    """

    epoch: str
    floor: int
    start: int
    head: int
    more: bool = False


def unsequenced(using: str, collection: str) -> bool:
    """Whether committed events wait for a number."""
    return LogEvent.objects.using(using).filter(collection=collection, seq=None).exists()


def sequence(using: str, collection: str, limit: int = BATCH) -> Numbered:
    """Number what waits: about ``limit`` events, a transaction's always together.

    Two sequencers of one stream wait for each other at its row's lock. Raises database errors.
    """
    streams = Stream.objects.using(using)
    if not streams.filter(collection=collection).exists():
        streams.get_or_create(collection=collection)
    with write_transaction(using):
        stream = streams.select_for_update().get(collection=collection)
        ids, more = _in_order(using, collection, limit)
        if not ids:
            return Numbered(stream.epoch, stream.floor, stream.head, stream.head)
        head = stream.head + len(ids)
        _number(using, ids, stream.head + 1)
        streams.filter(pk=stream.pk).update(head=head)
        _make_documents(using, collection, stream.epoch, stream.head)
    return Numbered(stream.epoch, stream.floor, stream.head, head, more)


def _in_order(using: str, collection: str, limit: int) -> tuple[list[int], bool]:
    """Ids to number, transaction by transaction, and whether others were left for next time."""
    waiting = LogEvent.objects.using(using).filter(collection=collection, seq=None)
    rows = waiting.order_by("id").values_list("transaction_id", "id")
    found = list(rows[: limit + 1])
    more = len(found) > limit
    if more:
        # a backlog: the last event of a transaction may lie far behind, so ask for whole ones
        names, more = _oldest_transactions(waiting)
        found = list(rows.filter(transaction_id__in=names))
    groups: dict[str, list[int]] = {}
    for name, id in found:
        # moved to the end at each event: transactions end up in the order of their last one
        group = groups.pop(name, [])
        group.append(id)
        groups[name] = group
    return [id for group in groups.values() for id in group], more


def _oldest_transactions(waiting: QuerySet[LogEvent]) -> tuple[list[str], bool]:
    """Transactions with about `BACKLOG` events, and whether there are more of them."""
    groups = waiting.values("transaction_id").annotate(last=Max("id"), count=Count("id"))
    names: list[str] = []
    total = 0
    for group in groups.order_by("last")[: BACKLOG + 1]:
        if total >= BACKLOG:
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


def _make_documents(using: str, name: str, epoch: str, start: int) -> None:
    """Where a serializer makes the collection's documents, make them once, now."""
    try:
        collection = registry.get(name)
    except UnknownCollection:
        return
    if collection.serializer is None:
        return
    rows = LogEvent.objects.using(using).filter(collection=name)
    while changes := page(using, name, epoch, start, BATCH):
        for change in changes:
            text = json_text(collection.document_of(change, using))
            rows.filter(seq=change.seq).update(document=text)
        start += len(changes)
