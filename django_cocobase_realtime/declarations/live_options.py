"""The options of collections for live queries: what clients may sort by, and what they may sum."""

from __future__ import annotations

from typing import Any

from ..filters.schema import NUMBER_KINDS, Kind
from .documents import serialized_names


def sortable_names(collection: Any) -> frozenset[str]:
    """Return the names of the fields that clients of a `Collection` may sort by."""
    names = collection.order_fields
    if names is None:
        names = {*(collection.readable or ()), *collection.filterable}
    schema = collection.schema
    return frozenset(name for name in names if name in schema and schema[name].ordered)


def summable_names(collection: Any) -> frozenset[str]:
    """Return the names of the fields that clients of a `Collection` may aggregate.

    Fields that are no numbers have extremes, but no sum. The database cannot aggregate fields with
    a conversion of their own.
    """
    names, kinds = collection.aggregates, frozenset(Kind)
    if names is None:
        readable, kinds = collection.readable, NUMBER_KINDS
        names = serialized_names(collection.loaded_serializer) if readable is None else readable
    schema, raw_names = collection.schema, collection.codec.raw_names
    return frozenset(
        name
        for name in names
        if name in schema
        and name not in raw_names
        and schema[name].ordered
        and schema[name].kind in kinds
    )
