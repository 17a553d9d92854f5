"""Documents of collections with a serializer: loads the rows, and calls the serializer.

The option ``queryset`` of a collection adds related rows and annotations to the query that loads
the rows. It does not decide which rows there are: rows that it adds are not asked for, and those
that it leaves out are read without it. Its values do not decide what is visible either: these are
read as columns of their own, by the same statement.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, NamedTuple

from django.db import models
from django.db.models import F, QuerySet

from ..events import FAILED_DOCUMENT, Change
from ..utils.project_code import ProjectCodeFailed, is_unavailable, synchronous
from ..utils.transactions import savepoint_at_first_query
from .collection import Collection
from .documents import Data, serialize_rows
from .serialization import raw_column

logger = logging.getLogger(__name__)

BATCH_SIZE = 200  # rows that are loaded and serialized together
# prefix of the annotations for the columns that are read besides those of the instance
_COLUMN = "_realtime_column_"


class LoadedRow(NamedTuple):
    """A row that the collection's queryset has loaded."""

    # the instance, with what the queryset adds
    instance: models.Model
    # values as the database holds them, by attname, as `RowCodec.partial_image` takes them
    values: dict[str, Any]


def load_rows(
    collection: Collection, keys: Sequence[Any], using: str, names: Sequence[str] = ()
) -> dict[str, LoadedRow]:
    """Return the rows with these primary keys by document id, loaded by the option ``queryset``.

    ``names`` are fields whose values are read as well. Returns nothing if the collection has no
    such option. The same if it raises, which is logged: the rows can be read without it.
    """
    extend = collection.loaded_queryset
    if extend is None or not keys:
        return {}
    codec, model = collection.codec, collection.model_class
    fields = [codec.fields.get(f.name, f) for f in model._meta.pk_fields]
    fields += [codec.fields[name] for name in names if name not in codec.key_names]
    columns = {
        f"{_COLUMN}{number}": raw_column(F(str(f.attname)), f.name in codec.raw_names)
        for number, f in enumerate(fields)
    }
    rows: dict[str, LoadedRow] = {}
    try:
        with savepoint_at_first_query(using):
            queryset = synchronous(extend(QuerySet(model, using=using)))
            if not isinstance(queryset, QuerySet):
                raise TypeError(f"queryset must return a QuerySet, not {type(queryset).__name__}.")
            queryset = queryset.using(using).order_by().annotate(**columns)
            for instance in queryset.filter(pk__in=keys):
                if not isinstance(instance, model):
                    raise TypeError(f"queryset must return a QuerySet of {model.__name__}.")
                attributes = instance.__dict__
                values = {
                    str(field.attname): attributes.pop(name)
                    for field, name in zip(fields, columns, strict=True)
                }
                key = tuple(values[str(f.attname)] for f in model._meta.pk_fields)
                id = codec.document_id(key if len(key) > 1 else key[0])
                # a join may repeat a row
                rows.setdefault(id, LoadedRow(instance, values))
    except Exception as error:
        if is_unavailable(error):
            raise
        _log(collection, "queryset", error)
        return {}
    return rows


def make_documents(
    collection: Collection, changes: Sequence[Change], using: str
) -> list[Data | None]:
    """Return the data that the serializer makes of each changed row.

    The changes are taken as they are stored, not decoded. A row is taken as it is after the
    change, or as it was before if it is deleted now, or counts as deleted. Values that a change
    does not contain, and related rows, are those of now. Returns None for each change if the
    collection has no serializer, and `FAILED_DOCUMENT` for those that fail, which is logged.
    Raises exceptions that mean that the database does not answer.
    """
    if collection.loaded_serializer is None:
        return [None] * len(changes)
    documents: list[Data | None] = []
    for start in range(0, len(changes), BATCH_SIZE):
        documents += _make_batch(collection, changes[start : start + BATCH_SIZE], using)
    return documents


def _make_batch(
    collection: Collection, changes: Sequence[Change], using: str
) -> Iterator[Data | None]:
    counts = Counter(change.document_id for change in changes if change.op != "deleted")
    keys = {id: collection.codec.key(id) for id in counts} if collection.loaded_queryset else {}
    loaded = load_rows(collection, [key for key in keys.values() if key is not None], using)
    instances: dict[int, models.Model] = {}
    for number, change in enumerate(changes):
        try:
            instance = make_instance(collection, change, using)
            row = loaded.get(change.document_id)
            if row is not None:
                is_shared = counts[change.document_id] > 1
                current = copy(row.instance) if is_shared else row.instance
                instance = with_values(current, instance)
            instances[number] = instance
        except Exception as error:
            if is_unavailable(error):
                raise
            _log(collection, "serializer", error)
    documents = dict(zip(instances, serialize(collection, instances.values(), using), strict=True))
    return (documents.get(number, dict(FAILED_DOCUMENT)) for number in range(len(changes)))


def serialize(collection: Collection, instances: Any, using: str) -> list[Data]:
    """Return the serializer's data for each instance, see `serialize_rows`."""
    serializer = collection.loaded_serializer
    assert serializer is not None
    return serialize_rows(serializer, list(instances), collection=collection.name, using=using)


def make_instance(collection: Collection, change: Change, using: str) -> models.Model:
    """Return the row of a stored change as an instance, see `make_documents`."""
    decoded = collection.decode(change, using).after
    image = change.after
    if decoded is None or (change.before is not None and collection.is_deleted(decoded)):
        image = change.before
    return collection.codec.to_instance(collection.model_class, image or {}, using)


def with_values(current: models.Model, changed: models.Model) -> models.Model:
    """Give an instance the values of another one of the same row, and return it.

    Related rows that it has loaded, but does not refer to with the new values, are dropped.
    """
    values, new_values = current.__dict__, changed.__dict__
    fields: Sequence[Any] = current._meta.concrete_fields
    for field in fields:
        name = str(field.attname)
        if name not in new_values:
            continue  # not part of the image
        differs = values.get(name) != new_values[name]
        if differs and field.is_relation and field.is_cached(current):
            field.delete_cached_value(current)
        values[name] = new_values[name]
    return current


def _log(collection: Collection, method: str, error: Exception) -> None:
    failure = ProjectCodeFailed(f"collection {collection.name!r}", method)
    failure.__cause__ = error
    failure.log()
