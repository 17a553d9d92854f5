"""What matches now, as the same identity would see it: read in pages, in a worker thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..declarations.collection import Collection
from ..events import Change, now
from ..filters.orm import ordering, to_q
from .event_frames import data_of
from .row_permissions import is_visible
from .table import Subscription

PAGE_SIZE = 200  # documents read at a time

Document = dict[str, Any]


def select_keys(
    collection: Collection, subscription: Subscription, order: str | None, most: int
) -> list[Any]:
    """Keys of the matching rows in order, ``most`` of them and one more where there are more.

    Nulls come lowest and texts go by code point, on every database; ties go by key.
    """
    model, using = collection.concrete_model, collection.database
    filter = subscription.query.filter
    if collection.deleted_filter is not None:
        filter &= ~collection.deleted_filter
    rows = model._base_manager.using(using).filter(to_q(filter, model, using))
    by = [] if order is None else [ordering(model, order, using)]
    return list(rows.order_by(*by, "pk").values_list("pk", flat=True)[: most + 1])


def load_documents(
    collection: Collection, subscription: Subscription, keys: Sequence[Any]
) -> list[Document]:
    """Documents of these rows in this order, but of those that are gone or match no more."""
    codec, using = collection.codec, collection.database
    rows = collection.concrete_model._base_manager.using(using).filter(pk__in=keys)
    pk = collection.concrete_model._meta.pk.attname
    found = {row[pk]: codec.image(row) for row in rows.values(*codec.attnames)}
    documents = []
    for key in keys:
        image = found.get(key)
        if image is None or not is_visible(collection, subscription, image):
            continue
        if collection.is_deleted(image):
            continue
        change = Change(
            "", collection.name, "created", codec.document_id(key), "", now(), after=image
        )
        document = collection.make_document(change, using)
        if document is not None:
            change = Change("", "", "created", change.document_id, "", "", document=document)
        data = data_of(change, subscription.query.fields)
        documents.append({"id": change.document_id, "data": data})
    return documents
