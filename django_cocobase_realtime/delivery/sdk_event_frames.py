"""A change in the words of the published SDKs."""

from __future__ import annotations

from typing import Any

from ..declarations.collection import Collection
from ..declarations.registry import registry
from ..events import Change
from ..wire import frames, sdk_frames
from .table import Subscription


def shows_old_values(change: Change, subscription: Subscription) -> bool:
    """Whether the subscription may see the row as it was before, too.

    Where each row is checked by itself, nobody asked about that one: no.
    """
    if change.op != "updated" or change.before is None or change.document is not None:
        return False
    if subscription.query.check is not None or subscription.query.fields is None:
        return False
    return subscription.query.filter.matches(registry.get(change.collection).row(change.before))


def encode_sdk_change(
    change: Change,
    fields: tuple[str, ...] | None,
    data: dict[str, Any],
    *,
    old: bool,
    max_bytes: int,
) -> str:
    """The frame, encoded; ``old``: with what the changed fields were."""
    collection = registry.get(change.collection)
    image = (change.before if change.op == "deleted" else change.after) or {}
    created, updated = (_time(collection, name, image, data) for name in collection.time_fields)
    was = None
    if old and fields is not None and change.before is not None and change.changed is not None:
        shown = [name for name in change.changed if name in fields]
        was = {name: change.before[name] for name in shown if name in change.before}

    def text(data: dict[str, Any], was: dict[str, Any] | None) -> str:
        frame = sdk_frames.change(
            collection=change.collection,
            op=change.op,
            id=change.document_id,
            data=data,
            created_at=created,
            updated_at=updated,
            old=was,
        )
        if data is not whole:
            frame["truncated"] = True
        return frames.encode(frame)

    whole = data
    found = text(whole, was)
    return found if len(found.encode()) <= max_bytes else text({}, None)


def _time(
    collection: Collection, name: str | None, image: dict[str, Any], data: dict[str, Any]
) -> str | None:
    """A time of the row's, where it was declared, or is among what may be read anyway."""
    if name is None or (name not in collection.declared_time_fields and name not in data):
        return None
    value = image.get(name)
    return value if isinstance(value, str) else None
