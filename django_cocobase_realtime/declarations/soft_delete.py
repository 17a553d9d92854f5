"""Soft deletes: clients see a row that is flagged as deleted, and a restored one as created."""

from __future__ import annotations

from msgspec.structs import replace

from ..events import Change, Image
from .collection import Collection


def apply_soft_delete(change: Change, collection: Collection) -> Change | None:
    """Return a change as clients must see it, or None if they must not.

    They do not see changes of a row that counted as deleted before and still does.
    """
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
        # without the image before the change, assume that the row existed
        existed = before or change.before is None
        return change if existed else replace(change, op="created", before=None, changed=None)
    if before or change.before is None:
        last_image = change.after if change.before is None else change.before
        return replace(change, op="deleted", before=last_image, after=None, changed=None)
    return None


def _exists(image: Image | None, collection: Collection) -> bool:
    """Return whether there is a row that does not count as deleted."""
    return image is not None and not collection.is_deleted(image)
