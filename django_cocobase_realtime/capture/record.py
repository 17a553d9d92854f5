"""From rows before and after to changes: into the log, or, where none is kept, to the broker.

A collection's log is in its own database. A row that was written to another one, and a
collection with ``durable`` False, are announced on commit, at most once.
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

observers: list[Callable[[Change], object]] = []
"""Called with each logged change once it is committed: for tests."""

_suppressed: ContextVar[bool] = ContextVar("realtime_suppressed", default=False)


@contextmanager
def capture_disabled() -> Iterator[None]:
    """Within the block, what this thread or task writes is not captured: for imports.

    Clients are not told; triggers, where they are installed, still log.
    """
    token = _suppressed.set(True)
    try:
        yield
    finally:
        _suppressed.reset(token)


def is_capture_disabled() -> bool:
    """Whether this thread or task writes without telling."""
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
    """A row was written. ``instance`` is None where only the database knows what it holds."""
    row: Row | None = None
    made: list[Change] = []
    current, at = Transaction.current(using), now()
    for codec, collections in table.codecs():
        old = None if before is None else codec.image(before)
        new = after_image(codec, instance, update_fields, old)
        if new is None:
            row = row or table.read(using, pk, lock=False)
            if row is None:  # written and deleted again by the project's own receivers
                return
            new = codec.image(row)
        op: Literal["created", "updated"] = "created" if created else "updated"
        made += _changes(collections, codec, op, pk, old, new, current, at)
    emit(using, table, made)


def record_rows(
    table: WatchedTable, using: str, pairs: Iterable[tuple[Row | None, Row | None]]
) -> None:
    """Many rows were written at once: each as it was (None: not there) and as it is."""
    made: list[Change] = []
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
            made += _changes(collections, codec, op, pk, old, new, current, at)
    emit(using, table, made)


def record_related(table: WatchedTable, using: str, row: Row, field: str) -> None:
    """A row's many-to-many field changed: an update of the row, though not of its table."""
    made: list[Change] = []
    current, at = Transaction.current(using), now()
    for codec, collections in table.codecs():
        image = codec.image(row)
        pk = table.pk_of(row)
        for change in _changes(collections, codec, "updated", pk, image, image, current, at):
            changed = None if change.changed is None else (field,)
            made.append(replace(change, changed=changed))
    emit(using, table, made)


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
    changed = None if op != "updated" or old is None or new is None else changed_fields(old, new)
    made = []
    for collection in collections:
        current.count += 1
        keep = collection.track or op == "deleted"
        made.append(
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
    return made


def emit(using: str, table: WatchedTable, changes: list[Change]) -> None:
    """Log changes and ring on commit; send those that no log keeps, on commit as well."""
    collections = {collection.name: collection for collection in table.collections}
    logged: list[Change] = []
    for change in changes:
        collection = collections[change.collection]
        if collection.durable and collection.database == using:
            logged.append(change)
        else:
            send = partial(_send, collection, change, using)
            # savepoints included: Django drops the hook with the savepoint that is rolled back
            transaction.on_commit(send, using=using, robust=True)
    if logged:
        current = Transaction.current(using)
        append(current.connection, logged)
        for observe in observers:
            for change in logged:
                transaction.on_commit(partial(observe, change), using=using)
        for name in dict.fromkeys(change.collection for change in logged):
            current.once_on_commit(name, partial(broker.notify, name))


def _send(collection: Collection, change: Change, using: str) -> None:
    document = collection.make_document(change, using)
    broker.publish(change if document is None else replace(change, document=document))
