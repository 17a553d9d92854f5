"""From rows before and after to changes, handed on when their transaction commits."""

from __future__ import annotations

import logging
import uuid
from functools import partial
from typing import Any, Literal

from django.db import models, transaction

from ..collection import Collection
from ..documents import RowCodec, difference
from ..events import Change, Image, now
from ..fanout.broker import broker
from .rows import Row, WatchedTable, after_image

logger = logging.getLogger(__name__)


class _Transaction:
    """Names one database transaction, for as long as it is open."""

    __slots__ = ("count", "id")

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self.count = 0

    def __call__(self) -> None:
        """The commit hook by which an open transaction is known; a rollback takes it away."""


def current_transaction(using: str) -> _Transaction:
    """The open transaction of a database connection; in autocommit a new one each time."""
    connection: Any = transaction.get_connection(using)
    current: _Transaction | None = getattr(connection, "_realtime_transaction", None)
    if current is None or not any(hook is current for _, hook, _ in connection.run_on_commit):
        current = connection._realtime_transaction = _Transaction()
        transaction.on_commit(current, using=using)
    return current


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
    for codec, collections in table.codecs():
        old = None if before is None else codec.image(before)
        new = after_image(codec, instance, update_fields, old)
        if new is None:
            row = row or table.read(using, pk, lock=False)
            if row is None:  # written and deleted again by the project's own receivers
                return
            new = codec.image(row)
        for collection in collections:
            _emit(
                collection,
                codec,
                using,
                op="created" if created else "updated",
                pk=pk,
                before=old if collection.track else None,
                after=new,
                changed=None if old is None or not collection.track else difference(old, new),
                document=document_of(collection, using, pk, instance),
            )


def record_delete(
    table: WatchedTable, using: str, pk: Any, before: Row, documents: dict[str, Any]
) -> None:
    """A row is gone. ``documents``: what serializers said of it while it was there."""
    for codec, collections in table.codecs():
        old = codec.image(before)
        for collection in collections:
            document = documents.get(collection.name)
            _emit(collection, codec, using, op="deleted", pk=pk, before=old, document=document)


def document_of(
    collection: Collection, using: str, pk: Any, instance: models.Model | None
) -> dict[str, Any] | None:
    """The serializer's document, made of what the database holds where the instance differs.

    A serializer that fails costs its readers the data, never the project its save.
    """
    if collection.serializer is None:
        return None
    model = collection.model_class
    try:
        if not isinstance(instance, model) or collection.codec.of_instance(instance) is None:
            instance = model._base_manager.using(using).get(pk=pk)
        return collection.serialize(instance)
    except Exception:
        logger.exception("The serializer of collection %r failed.", collection.name)
        return {}


def _emit(
    collection: Collection,
    codec: RowCodec,
    using: str,
    *,
    op: Literal["created", "updated", "deleted"],
    pk: Any,
    before: Image | None = None,
    after: Image | None = None,
    changed: tuple[str, ...] | None = None,
    document: dict[str, Any] | None = None,
) -> None:
    current = current_transaction(using)
    current.count += 1
    change = Change(
        id=f"{current.id}-{current.count}",
        collection=collection.name,
        op=op,
        document_id=codec.key(pk),
        transaction=current.id,
        at=now(),
        before=before,
        after=after,
        changed=changed,
        document=document,
    )
    # savepoints included: Django drops the hook with the savepoint that is rolled back
    transaction.on_commit(partial(broker.publish, change), using=using, robust=True)
