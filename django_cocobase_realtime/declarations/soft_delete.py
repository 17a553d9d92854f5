"""Soft deletes: a row that is flagged as deleted looks deleted, one that is restored, created."""

from __future__ import annotations

from msgspec.structs import replace

from ..events import Change, Image
from .collection import Collection


def apply_soft_delete(change: Change, collection: Collection) -> Change | None:
    """The change as clients of the collection see it; None for one of a row that is not there."""
    if collection.deleted_filter is None:
        return change
    before = _exists(change.before, collection)
    after = _exists(change.after, collection)
    match change.op:
        case "created":
            return change if after else None
        case "deleted":
            return change if before else None
    if after:
        # with no old row to look at, it was there for all that is known
        was_there = before or change.before is None
        return change if was_there else replace(change, op="created", before=None, changed=None)
    if before or change.before is None:
        last = change.after if change.before is None else change.before
        return replace(change, op="deleted", before=last, after=None, changed=None)
    return None


def _exists(image: Image | None, collection: Collection) -> bool:
    return image is not None and not collection.is_deleted(image)
