"""The changes that a handler is called with, from those in the log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..declarations.collection import Collection
from ..declarations.handler import ChangeHandler, CommittedChange
from ..declarations.soft_delete import apply_soft_delete
from ..events import Change, Image
from ..filters import Filter
from ..log.cursor import Position, encode
from ..log.reader import read_events, stream_ranges
from ..log.sequencer import has_unsequenced, sequence

# bytes of images that are read at a time
BATCH_BYTES = 4 * 1024 * 1024


class PositionLost(Exception):
    """The log does not contain the changes after a position any more."""


def stream_head(using: str, stream: str) -> Position:
    """Number the changes of a stream that have no number, and return the last position."""
    while True:
        result = sequence(using, stream)
        if not result.more:
            return Position(result.epoch, result.head)


def number_changes(using: str, stream: str) -> bool:
    """Number changes of a stream that have no number; return whether there were any."""
    if not has_unsequenced(using, stream):
        return False
    result = sequence(using, stream)
    return result.head > result.start


def changes_after(using: str, stream: str, position: Position, limit: int) -> list[Change]:
    """Return up to ``limit`` numbered changes after a position, in order.

    Raises `PositionLost`.
    """
    known = stream_ranges(using, [stream]).get(stream)
    if known is None or known.epoch != position.epoch:
        raise PositionLost
    if not known.floor <= position.seq <= known.head:
        raise PositionLost
    if position.seq == known.head:
        return []
    after, epoch = position.seq, position.epoch
    # not beyond the head: later changes may belong to a new epoch
    until = known.head
    changes = read_events(using, stream, epoch, after, limit, until=until, max_bytes=BATCH_BYTES)
    if [change.seq for change in changes] != list(range(after + 1, after + 1 + len(changes))):
        raise PositionLost  # deleted in the meantime
    if not changes:
        raise PositionLost
    return changes


def change_for(
    handler: ChangeHandler, filter: Filter | None, collection: Collection, change: Change
) -> Change | None:
    """Return a change as a handler with this filter must see it; None if it does not concern it.

    Soft deletes are deletions, as for clients. If it is unknown whether the row matches, since the
    log does not hold all of its values, the change concerns the handler.
    """
    visible = apply_soft_delete(collection.decode(change), collection)
    if visible is None or visible.op not in handler.ops:
        return None
    image = visible.before if visible.op == "deleted" else visible.after
    if filter is None or image is None or filter.decide(collection.row(image)) is not False:
        return visible
    return None


def committed_change(collection: Collection, change: Change) -> CommittedChange:
    """Return a change with decoded images in the form that handlers are called with."""
    assert change.epoch is not None
    assert change.seq is not None
    return CommittedChange(
        collection=collection.name,
        event=change.op,
        document_id=change.document_id,
        before=_values(collection, change.before),
        after=_values(collection, change.after),
        changed=change.changed,
        cursor=encode(collection.stream, change.epoch, change.seq),
        transaction=change.transaction,
        at=datetime.fromisoformat(change.at),
    )


def _values(collection: Collection, image: Image | None) -> dict[str, Any] | None:
    """Return the values of an instance by field name. For a foreign key, that is the key."""
    if image is None:
        return None
    codec = collection.codec
    model, using = collection.concrete_model, collection.database
    values = codec.to_instance(model, image, using, decoded=True).__dict__
    attnames = {name: str(field.attname) for name, field in codec.fields.items()}
    return {name: values[attname] for name, attname in attnames.items() if attname in values}
