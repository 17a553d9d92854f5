"""Queries for the documents of a snapshot.

These functions use the ORM, so they must not be called in an event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from msgspec.structs import replace

from ..capture.tables import WatchedTable, identify
from ..declarations.collection import Collection
from ..events import Change, now
from ..filters.orm import ordering, to_q
from .event_frames import document_of
from .row_permissions import is_visible
from .subscription import Subscription

PAGE_SIZE = 200  # documents that are read at a time

# {"id": ..., "data": {...}}
Document = dict[str, Any]


def select_keys(
    collection: Collection, subscription: Subscription, order: str | None, limit: int
) -> list[Any]:
    """Return the primary keys of the first ``limit`` matching rows, and of one more if there is.

    On every database, nulls sort lowest, texts sort by code points, and equal values by key.
    """
    model, using = collection.concrete_model, collection.database
    filter = subscription.query.filter
    if collection.deleted_filter is not None:
        filter &= ~collection.deleted_filter
    # managers of the project may replace names of fields, or leave rows out
    rows: QuerySet[Any] = QuerySet(model, using=using).filter(to_q(filter, model, using))
    by = [] if order is None else [ordering(model, order, using)]
    return list(rows.order_by(*by, "pk").values_list("pk", flat=True)[: limit + 1])


def load_documents(
    collection: Collection, subscription: Subscription, keys: Sequence[Any]
) -> list[Document]:
    """Return the documents with these primary keys, in the same order.

    Rows that were deleted, or do not match any more, are left out.
    """
    codec, using = collection.codec, collection.database
    rows = WatchedTable(collection.concrete_model, (collection,)).read(using, keys)
    documents = []
    for key in keys:
        row = rows.get(identify(collection.concrete_model, key))
        if row is None:
            continue
        id, stored = codec.document_id(key), codec.image(row)
        image = codec.decode(stored, using)
        if not is_visible(collection, subscription, image) or collection.is_deleted(image):
            continue
        change = Change("", collection.name, "created", id, "", now(), after=image)
        document = collection.make_document(replace(change, after=stored), using)
        if document is not None:
            change = Change("", "", "created", id, "", "", document=document)
        documents.append(document_of(change, subscription.query.fields))
    return documents
