"""Changes whose images lack fields, because code with other fields wrote them.

While a new version of a project is deployed, old processes write images without the fields that
the new version added. A client that resumes afterwards replays such changes, too. A missing field
is not null: the change is judged by the row as it is now. If the row is gone, and a subscription
depends on a missing field, the collection's clients fetch everything again.

Such changes also lack values of related fields, which are then read as they are now.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import InterfaceError, OperationalError
from msgspec.structs import replace

from ..capture.tables import WatchedTable, identify
from ..declarations.collection import Collection
from ..declarations.image_fields import filter_names
from ..declarations.related_values import make_related
from ..events import Change, Image
from .query import AuthorizedQuery

logger = logging.getLogger(__name__)


def is_complete(collection: Collection, change: Change) -> bool:
    """Return whether a change has all fields, and all values of related fields."""
    return _has_images(collection, change) and _has_related(collection, change)


def _has_related(collection: Collection, change: Change) -> bool:
    names = collection.related_fields.keys()
    return not names or (change.related is not None and change.related.keys() >= names)


def _has_images(collection: Collection, change: Change) -> bool:
    """Return whether the images have all fields. Both were written by one code."""
    image = change.before if change.after is None else change.after
    return image is None or collection.codec.is_complete(image)


def missing_names(collection: Collection, change: Change) -> frozenset[str]:
    """Return the names of the fields that an image of a change lacks."""
    names = collection.codec.fields.keys()
    images = (image for image in (change.before, change.after) if image is not None)
    return frozenset().union(*(names - image.keys() for image in images))


def restore(collection: Collection, changes: Sequence[Change]) -> list[Change]:
    """Return the changes, those with incomplete images by the rows as they are now.

    Deletions, and changes of rows that are gone, keep their images. Missing values of related
    fields are those of now. Uses the ORM, with one query for all rows: not for event loops.
    """
    changes = _restore_images(collection, changes)
    ids = {change.document_id for change in changes if not _has_related(collection, change)}
    related = make_related(collection, ids) if ids else {}
    return [
        replace(change, related=related[change.document_id])
        if change.document_id in related and not _has_related(collection, change)
        else change
        for change in changes
    ]


def _restore_images(collection: Collection, changes: Sequence[Change]) -> list[Change]:
    codec = collection.codec
    keys = {
        change.document_id: codec.key(change.document_id)
        for change in changes
        if change.op != "deleted" and not _has_images(collection, change)
    }
    images = _read_images(collection, {id: key for id, key in keys.items() if key is not None})
    return [
        _restored(change, images[change.document_id])
        if change.document_id in images and not _has_images(collection, change)
        else change
        for change in changes
    ]


def _read_images(collection: Collection, keys: dict[str, Any]) -> dict[str, Image]:
    """Return the images of rows as they are now; keys and images are by document id."""
    if not keys:
        return {}
    model, codec = collection.concrete_model, collection.codec
    try:
        rows = WatchedTable(model, (collection,)).read(collection.database, list(keys.values()))
        by_id = {id: rows.get(identify(model, key)) for id, key in keys.items()}
        return {id: codec.image(row) for id, row in by_id.items() if row is not None}
    except (OperationalError, InterfaceError) as error:
        # the first is also raised for text in SQLite that is not valid UTF-8
        if "decode" not in str(error):
            raise
        refused: Exception = error
    except Exception as error:
        # a value that the driver or a field of the project refuses; trying again would not help
        refused = error
    if len(keys) > 1:
        images: dict[str, Image] = {}
        for id, key in keys.items():
            images |= _read_images(collection, {id: key})
        return images
    logger.error("A row of collection %r cannot be read.", collection.name, exc_info=refused)
    return {}


def _restored(change: Change, image: Image) -> Change:
    if change.op == "deleted":
        return change
    # The fields that are missing before the change were not written by it. It is not known which
    # fields changed: old values are sent to clients only if they are known to have been visible.
    before = None if change.before is None else {**image, **change.before}
    return replace(change, before=before, after=image, changed=None)


def find_undecidable(
    collection: Collection, change: Change, queries: Iterable[AuthorizedQuery]
) -> bool:
    """Return whether a missing field decides if one of the subscriptions gets a change."""
    if _has_images(collection, change):
        return False
    missing = missing_names(collection, change)
    deleted = collection.deleted_filter
    for_all = deleted is not None and not missing.isdisjoint(filter_names(deleted))
    return any(
        for_all
        or query.check is not None  # it may look at any field
        or not missing.isdisjoint(filter_names(query.filter))
        for query in queries
    )
