"""Recording of changes: rows before and after a write become events in the log.

The log of a collection is in the database of its model. Changes of rows in another database, and
those of collections with ``durable = False``, are not logged: they are published after the
commit, and delivered at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

from django.db import models, transaction
from msgspec.structs import replace

from ..declarations.collection import Collection
from ..declarations.serialization import RowCodec, changed_fields
from ..events import Change, Image, now
from ..log.append import Transaction, append
from ..pubsub.broker import broker
from .rows import Row, WatchedTable, after_image

# functions that are called with each logged change after its commit; used by tests
observers: list[Callable[[Change], object]] = []

_suppressed: ContextVar[bool] = ContextVar("realtime_suppressed", default=False)


@contextmanager
def capture_disabled() -> Iterator[None]:
    """Do not capture what this thread or task writes within the block, such as a bulk import.

    Clients get no events for these writes. Triggers, if they are installed, still log them.
    """
    token = _suppressed.set(True)
    try:
        yield
    finally:
        _suppressed.reset(token)


def is_capture_disabled() -> bool:
    """Return whether this thread or task is within `capture_disabled`."""
    return _suppressed.get()


def record_save(
    table: WatchedTable,
    using: str,
    pk: Any,
    *,
    before: Row | None,
    created: bool,
    instance: models.Model | None,
    update_fields: frozenset[str] | None = None,
) -> None:
    """Record one row that was created or updated.

    ``before`` is the row before the write, if it was read. The row after the write is taken from
    ``instance``, or read from the database if that is None or does not have all values.
    """
    row: Row | None = None
    changes: list[Change] = []
    current, at = Transaction.current(using), now()
    for codec, collections in table.codecs():
        old = None if before is None else codec.image(before)
        new = after_image(codec, instance, update_fields, old)
        if new is None:
            row = row or table.read(using, pk, lock=False)
            if row is None:  # a receiver of the project has already deleted it
                return
            new = codec.image(row)
        op: Literal["created", "updated"] = "created" if created else "updated"
        changes += _changes(collections, codec, op, pk, old, new, current, at)
    emit(using, table, changes)


def record_rows(
    table: WatchedTable, using: str, pairs: Iterable[tuple[Row | None, Row | None]]
) -> None:
    """Record rows that were written together.

    A pair has a row before and after the write; None means that there was no such row.
    """
    changes: list[Change] = []
    groups = list(table.codecs())
    current, at = Transaction.current(using), now()
    for before, after in pairs:
        row = after or before
        if row is None:
            continue
        pk = table.pk_of(row)
        for codec, collections in groups:
            old = None if before is None else codec.image(before)
            new = None if after is None else codec.image(after)
            op: Literal["created", "updated", "deleted"]
            op = "deleted" if after is None else "created" if before is None else "updated"
            changes += _changes(collections, codec, op, pk, old, new, current, at)
    emit(using, table, changes)


def record_related(table: WatchedTable, using: str, row: Row, field: str) -> None:
    """Record a change of a row's many-to-many field as an update of the row.

    The row itself has not changed, so its images before and after are equal.
    """
    changes: list[Change] = []
    current, at = Transaction.current(using), now()
    for codec, collections in table.codecs():
        image = codec.image(row)
        pk = table.pk_of(row)
        for change in _changes(collections, codec, "updated", pk, image, image, current, at):
            changed = None if change.changed is None else (field,)
            changes.append(replace(change, changed=changed))
    emit(using, table, changes)


def _changes(
    collections: Iterable[Collection],
    codec: RowCodec,
    op: Literal["created", "updated", "deleted"],
    pk: Any,
    old: Image | None,
    new: Image | None,
    current: Transaction,
    at: str,
) -> list[Change]:
    """Return one change per collection, numbered within the transaction."""
    changed = None if op != "updated" or old is None or new is None else changed_fields(old, new)
    changes = []
    for collection in collections:
        current.count += 1
        # which subscriptions receive a deletion is decided by the row before it
        keep = collection.track or op == "deleted"
        changes.append(
            Change(
                id=f"{current.id}-{current.count}",
                collection=collection.name,
                op=op,
                document_id=codec.document_id(pk),
                transaction=current.id,
                at=at,
                before=old if keep else None,
                after=new,
                changed=changed if keep else None,
            )
        )
    return changes


def emit(using: str, table: WatchedTable, changes: list[Change]) -> None:
    """Append changes to the log and announce them after the commit.

    Changes that are not logged are published after the commit.
    """
    collections = {collection.name: collection for collection in table.collections}
    logged: list[Change] = []
    for change in changes:
        collection = collections[change.collection]
        if collection.durable and collection.database == using:
            logged.append(change)
        else:
            publish = partial(_publish, collection, change, using)
            # Django also drops the hook if only the savepoint around the write is rolled back
            transaction.on_commit(publish, using=using, robust=True)
    if logged:
        current = Transaction.current(using)
        append(current.connection, logged)
        for observe in observers:
            for change in logged:
                transaction.on_commit(partial(observe, change), using=using)
        for name in dict.fromkeys(change.collection for change in logged):
            current.once_on_commit(name, partial(broker.notify, name))


def _publish(collection: Collection, change: Change, using: str) -> None:
    document = collection.make_document(change, using)
    broker.publish(change if document is None else replace(change, document=document))
