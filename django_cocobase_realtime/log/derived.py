"""Derived events: documents that show a related row are updated when it changes.

A process that follows a hidden stream derives from each of its events, exactly once: it appends an
event to the stream of each collection for each document that shows the changed row. Until which
event of the hidden stream this was done is stored with that stream (`Stream.derived`), in the same
transaction. Nothing is derived from derived events: only the changes of tables are in a hidden
stream.

The image of the document is the row as it is now, before and after. It may not be older than an
event of the same document that has a lower number, or clients would keep the old row. So derived
events are appended with their numbers, after all events that were committed before the row was
read. A change that is committed later gets a higher number.

If more documents show changed rows than the limit ``derived_events`` allows, or if events of the
hidden stream were deleted before anything was derived from them, the collection's stream begins a
new epoch: clients load their data again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.models import F
from django.utils import timezone

from ..conf import conf
from ..declarations.collection import Collection
from ..declarations.dependency_table import hidden_stream
from ..declarations.depends_on import followed_paths
from ..declarations.registry import registry
from ..events import Change, Image
from ..models import Stream
from ..utils.project_code import is_unavailable
from ..utils.transactions import write_transaction
from .append import insert_numbered
from .as_of import images_as_of
from .derived_documents import Concerned, TooManyDocuments, find_concerned
from .reader import read_events
from .retention import rotate_epoch
from .sequencer import has_unsequenced, number_waiting, sequence
from .stored_values import make_values

logger = logging.getLogger(__name__)

HIDDEN_EVENTS = 1000  # events of a hidden stream that are examined together
# how often rows are read again because others have written meanwhile
MAX_READS = 3


class _Backlog(Exception):
    """A stream has too many events without a number for one transaction."""


@dataclass(slots=True)
class _Documents:
    """The documents of a collection that changes of related rows concern."""

    collection: Collection
    # names of the related fields by primary key; None if they are too many
    names: dict[Any, set[str]] | None


def derive(using: str) -> list[str]:
    """Derive events from all changes of related tables of a database that were committed.

    Returns the streams that have new events with numbers, or a new epoch. Can be called by several
    processes at once. Uses the ORM: not for event loops. Raises the exceptions of the database.
    """
    collections = registry.showing_related(using)
    if not collections:
        return []
    hidden = hidden_stream(using)
    touched: dict[str, None] = {}
    if has_unsequenced(using, hidden):
        _number_all(using, hidden, touched)
    while _derive_batch(using, hidden, collections, touched):
        pass
    return list(touched)


def _number_all(using: str, stream: str, touched: dict[str, None]) -> None:
    touched[stream] = None
    while sequence(using, stream).more:
        pass


def _derive_batch(
    using: str, hidden: str, collections: Sequence[Collection], touched: dict[str, None]
) -> bool:
    """Derive from the next events of a hidden stream; return whether there may be more."""
    streams = Stream.objects.using(using)
    stream, _ = streams.get_or_create(collection=hidden, defaults={"derived": 0})
    if stream.derived is None:  # no client has been sent values of related rows so far
        streams.filter(pk=stream.pk, derived=None).update(derived=F("head"))
        return True
    if stream.derived >= stream.head:
        return False
    if stream.derived < stream.floor:
        return _resync_all(using, stream, collections, touched)
    start = stream.derived
    changes = read_events(using, hidden, stream.epoch, start, HIDDEN_EVENTS)
    if not changes:
        return False
    end = changes[-1].seq
    if changes[0].seq != start + 1 or end is None:
        return True  # deleted in the meantime, see above
    # the documents are looked for without a lock: what refers to a changed row later has an event
    # of its own, which is numbered after the row was changed
    shown = [
        _find_documents(concerned, using)
        for concerned in find_concerned(collections, changes, using)
    ]
    shown = [documents for documents in shown if documents.names != {}]
    if not shown:
        _move_position(using, stream, end)
        return True
    try:
        with write_transaction(using):
            locked = _lock(using, [hidden, *(d.collection.stream for d in shown)])
            current = locked[hidden]
            if (current.derived, current.epoch) == (start, stream.epoch):
                for documents in shown:
                    _apply(using, locked[documents.collection.stream], current, documents)
                _move_position(using, current, end)
    except _Backlog as backlog:
        _number_all(using, str(backlog), touched)
    else:
        touched |= dict.fromkeys([hidden, *(d.collection.stream for d in shown)])
    return True


def _find_documents(concerned: Concerned, using: str) -> _Documents:
    try:
        names = concerned.find(using, conf.limits.derived_events)
    except TooManyDocuments:
        return _Documents(concerned.collection, None)
    except Exception as error:
        if is_unavailable(error):
            raise
        logger.exception("Documents of %r cannot be looked up.", concerned.collection.name)
        return _Documents(concerned.collection, None)
    return _Documents(concerned.collection, names)


def _resync_all(
    using: str, stream: Stream, collections: Sequence[Collection], touched: dict[str, None]
) -> bool:
    """Begin a new epoch of all streams, because events of the hidden one were deleted too early."""
    names = [collection.stream for collection in collections]
    with write_transaction(using):
        current = _lock(using, [stream.collection, *names])[stream.collection]
        if current.derived is None or current.derived >= current.floor:
            return True  # another process was faster
        rotate_epoch(using, names)
        _move_position(using, current, current.head)
    touched |= dict.fromkeys(names)
    return True


def _move_position(using: str, stream: Stream, end: int) -> None:
    rows = Stream.objects.using(using).filter(pk=stream.pk, derived=stream.derived)
    rows.filter(epoch=stream.epoch).update(derived=end)


def _lock(using: str, names: Iterable[str]) -> dict[str, Stream]:
    """Return streams, which are locked in the same order as for numbering."""
    names = list(dict.fromkeys(names))
    streams = Stream.objects.using(using)
    for attempt in range(2):
        rows = streams.select_for_update().filter(collection__in=names).order_by("collection")
        locked = {stream.collection: stream for stream in rows}
        if len(locked) == len(names) or attempt:
            break
        for name in names:
            streams.get_or_create(collection=name)
    return locked


def _apply(using: str, stream: Stream, hidden: Stream, documents: _Documents) -> None:
    """Append the events of one collection, or begin a new epoch of its stream."""
    collection = documents.collection
    if documents.names is None:
        rotate_epoch(using, [collection.stream])
        return
    keys = list(documents.names)
    for _ in range(MAX_READS):
        if not number_waiting(using, stream, hidden):
            raise _Backlog(stream.collection)
        images = images_as_of(collection, keys, None)
        if not has_unsequenced(using, stream.collection):
            break  # the images are the rows as of the head of the stream
    # after the rows: who may not see them any more must not be sent them
    if not number_waiting(using, hidden, None):
        raise _Backlog(hidden.collection)
    document_id = collection.codec.document_id
    names = {document_id(key): names for key, names in documents.names.items()}
    _append(using, collection, stream, hidden, [(id, images[id], names[id]) for id in images])


def _append(
    using: str,
    collection: Collection,
    stream: Stream,
    hidden: Stream,
    updates: Sequence[tuple[str, Image, set[str]]],
) -> None:
    """Append events with numbers, and move the head of the stream."""
    transaction, at, keeps_old = uuid.uuid4().hex, timezone.now(), collection.track
    paths = followed_paths(collection.related_fields, collection.serialized_relations)
    order = dict.fromkeys(name for name, _ in paths)
    changes = [
        Change(
            id=f"{transaction}-{number}",
            collection=stream.collection,
            op="updated",
            document_id=id,
            transaction=transaction,
            at=at.isoformat(),
            before=image if keeps_old else None,
            after=image,
            changed=tuple(name for name in order if name in names) if keeps_old else None,
            epoch=stream.epoch,
            seq=stream.head + number,
            related_seq=hidden.head,
        )
        for number, (id, image, names) in enumerate(updates, 1)
    ]
    values = make_values(using, collection, changes)
    insert_numbered(connections[using], values.changes, at, values.column, values.texts)
    stream.head += len(changes)
    Stream.objects.using(using).filter(pk=stream.pk).update(head=stream.head)
