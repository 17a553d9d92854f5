"""Documents of rows with given primary keys, as far as a subscription may see them.

A row that was changed after a position is taken as it was at the position, see `log.as_of`.
Related fields have the values of now.

Whether a row is visible is decided by its columns. If the collection has a serializer and the
option ``queryset``, they are read by the same statement as the instance that is serialized, so
that a row cannot change between the two.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import models

from ..capture.tables import WatchedTable, identify
from ..declarations.collection import Collection
from ..declarations.image_fields import filter_names
from ..declarations.related_values import with_related
from ..declarations.row_documents import load_rows, serialize, with_values
from ..events import Change, Image
from ..log.cursor import Position
from ..log.touched import read_touched
from ..utils.repeated_log import omitted_text, repeated_log
from .event_frames import document_of
from .row_permissions import is_visible
from .subscription import Subscription

logger = logging.getLogger(__name__)

# {"id": ..., "data": {...}}
Document = dict[str, Any]


def read_documents(
    collection: Collection,
    subscription: Subscription,
    keys: Sequence[Any],
    position: Position | None = None,
) -> list[Document | None]:
    """Return the document of each primary key; None if it was deleted or does not match.

    Without a position, the rows are taken as they are now. Raises `CannotUndo`. Uses the ORM, so it
    must not be called in an event loop.
    """
    rows = list(_read_rows(collection, subscription, keys, position))
    visible = [row for row in rows if row is not None]
    changes = [
        Change("", collection.name, "created", id, "", "", after=image)
        for id, image, _ in visible
        if image is not None
    ]
    changes = with_related(collection, changes)
    if collection.loaded_serializer is not None:
        instances = [instance for _, _, instance in visible]
        documents = serialize(collection, instances, collection.database)
        changes = [
            Change("", collection.name, "created", id, "", "", document=document)
            for (id, _, _), document in zip(visible, documents, strict=True)
        ]
    fields, following = subscription.query.fields, iter(changes)
    return [None if row is None else document_of(next(following), fields) for row in rows]


# the document's id; its decoded image; and the instance for the serializer, if there is one
_Row = tuple[str, Image, models.Model | None]


def _read_rows(
    collection: Collection,
    subscription: Subscription,
    keys: Sequence[Any],
    position: Position | None,
) -> Iterator[_Row | None]:
    codec, using = collection.codec, collection.database
    names = _decisive_names(collection, subscription)
    loaded = load_rows(collection, keys, using, names)
    ids = [codec.document_id(key) for key in keys]
    others = [key for key, id in zip(keys, ids, strict=True) if id not in loaded]
    table = WatchedTable(collection.concrete_model, (collection,))
    rows = table.read(using, others) if others else {}
    if loaded and rows:
        _warn_of_missing_rows(collection)
    former: Mapping[str, Image | None] = {}
    if position is not None:
        former = read_touched(collection, position, ids=set(ids)).images
    for key, id in zip(keys, ids, strict=True):
        stored: Image | None = None
        instance: models.Model | None = None
        if id in loaded:
            instance, values = loaded[id]
            stored = codec.partial_image(values)
        elif row := rows.get(identify(collection.concrete_model, key)):
            stored = codec.image(row)
        is_former = id in former
        if is_former:
            stored = former[id]
        if stored is None:
            yield None
            continue
        image = codec.decode(stored, using)
        if not is_visible(collection, subscription, image) or collection.is_deleted(image):
            yield None
            continue
        if collection.loaded_serializer is not None and (instance is None or is_former):
            current, instance = instance, codec.to_instance(collection.model_class, stored, using)
            if current is not None:
                # with the related rows that the queryset has loaded
                instance = with_values(current, instance)
        yield id, image, instance


def _decisive_names(collection: Collection, subscription: Subscription) -> list[str]:
    """Return the names of the fields that decide whether a row is visible."""
    names = set(collection.codec.fields)
    if subscription.query.check is None:
        names &= filter_names(subscription.query.filter) | filter_names_of_deleted(collection)
    return sorted(names)


def filter_names_of_deleted(collection: Collection) -> frozenset[str]:
    """Return the names of the fields that decide whether a row counts as deleted."""
    deleted = collection.deleted_filter
    return frozenset() if deleted is None else filter_names(deleted)


def _warn_of_missing_rows(collection: Collection) -> None:
    omitted = repeated_log.admit(("queryset", collection.name))
    if omitted is not None:
        logger.warning(
            "queryset of collection %r left out rows. They are read without it: it must not "
            "filter. Which rows clients see is decided by the permission.%s",
            collection.name,
            omitted_text(omitted),
        )
