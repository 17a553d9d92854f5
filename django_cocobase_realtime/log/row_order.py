"""The order of rows as `filters.orm.ordering` has it, for rows that are not in a query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import total_ordering
from ipaddress import ip_address
from typing import Any

from django.db import connections

from ..declarations.collection import Collection
from ..declarations.serialization import field_encoder
from ..events import Image
from ..filters import Kind
from ..filters.row import Row


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class _Descending:
    """A value that sorts in the opposite direction."""

    value: Any

    def __lt__(self, other: _Descending) -> bool:
        return bool(other.value < self.value)


class RowOrder:
    """An order of a collection's rows, in which equal ones are sorted by key.

    ``order`` is the name of a field, with a leading ``-`` for descending order, or None for the
    order of the keys. Nulls sort lowest, and texts by code points.
    """

    def __init__(self, collection: Collection, order: str | None) -> None:
        self._schema = collection.schema
        # name of the field
        self.name = None if order is None else order.removeprefix("-")
        self._is_descending = order is not None and order.startswith("-")
        self._is_postgres = connections[collection.database].vendor == "postgresql"
        self._encode: Callable[[Any], Any] | None = None
        # name of the field's column in queries of the ORM
        self.attname: str | None = None
        # whether the database sorts by what it holds, and not by the value, so there is no `place`
        self.is_converted = self.name in collection.codec.raw_names
        if self.name is not None:
            field = collection.codec.fields[self.name]
            self._encode, self.attname = field_encoder(field), str(field.attname)

    def place(self, image: Image, key: Any) -> tuple[Any, ...]:
        """Return what a row with a stored image is sorted by."""
        return (key,) if self.name is None else (self._place(image.get(self.name)), key)

    def place_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Return what a row of a query is sorted by. It has the key first, and the field last."""
        return (row[0],) if self._encode is None else (self._place(self._encode(row[-1])), row[0])

    def _place(self, raw: Any) -> Any:
        assert self.name is not None
        spec = self._schema[self.name]
        value = Row({self.name: raw}, self._schema).get(spec.ref)
        place: tuple[Any, ...]
        if raw is None:
            place = (-1,)
        elif value is None and spec.compares_as in (Kind.FLOAT, Kind.DECIMAL):
            place = (1,)  # NaN, which PostgreSQL sorts above all numbers
        elif spec.compares_as is Kind.ADDRESS and self._is_postgres:
            address = ip_address(value)
            place = (address.version, int(address))
        else:
            place = (0, value)
        return _Descending(place) if self._is_descending else place
