"""What matches now, as the same identity would see it: read in pages, in a worker thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..collection import Collection
from ..events import Change, now
from ..filters import Row
from ..filters.orm import to_q
from .frames import data_of
from .subscriptions import Subscription

PAGE = 200  # documents of one frame

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which documents: ``limit`` of them at most, in ``order`` (a field, with ``-`` downwards)."""

    limit: int
    order: str | None = None


def find(collection: Collection, subscription: Subscription, wanted: Wanted) -> list[Any]:
    """Keys of the matching rows in order, one more than ``limit`` where there are more."""
    model = collection.concrete_model
    rows = model._base_manager.using(collection.database).filter(to_q(subscription.filter))
    order = ["pk"] if wanted.order is None else [wanted.order, "pk"]
    return list(rows.order_by(*order).values_list("pk", flat=True)[: wanted.limit + 1])


def read(collection: Collection, subscription: Subscription, keys: Sequence[Any]) -> list[Document]:
    """Documents of these rows in this order, but of those that are gone or match no more."""
    codec = collection.codec
    using = collection.database
    rows = collection.concrete_model._base_manager.using(using).filter(pk__in=keys)
    pk = collection.concrete_model._meta.pk.attname
    found = {row[pk]: codec.image(row) for row in rows.values(*codec.attnames)}
    documents = []
    for key in keys:
        image = found.get(key)
        if image is None or not subscription.filter.matches(Row(image, collection.schema)):
            continue
        change = Change("", collection.name, "created", codec.key(key), "", now(), after=image)
        document = collection.document_of(change, using)
        if document is not None:
            change = Change("", "", "created", change.document_id, "", "", document=document)
        documents.append({"id": change.document_id, "data": data_of(change, subscription.fields)})
    return documents
