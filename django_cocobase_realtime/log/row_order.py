"""The order of rows as `filters.orm_order` has it, for rows that are not in a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import total_ordering
from ipaddress import ip_address
from typing import Any

from django.db import connections

from ..declarations.collection import Collection
from ..declarations.serialization import has_custom_conversion
from ..events import Image
from ..filters import FieldSpec, Kind
from ..filters.order import InvalidOrder, Order
from ..filters.orm import field_spec
from ..filters.orm_order import is_nan, sort_names
from ..filters.schema import coerce

Place = tuple[Any, ...]
"""Values by which rows are sorted; places in one order can be compared."""

# before and after all other values of a field
_NULL, _NAN = (0,), (2,)


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class _Descending:
    """A value that sorts in the opposite direction."""

    value: Any

    def __lt__(self, other: _Descending) -> bool:
        return bool(other.value < self.value)


class RowOrder:
    """An order of a collection's rows: by the fields of an `Order`, then by the primary key.

    Nulls sort lowest, and texts by code points. Raises `InvalidOrder` for an order that only the
    database knows, because a field outside of Django converts the values, or because values have
    no order in Python. All other orders are the same as those of `ordering`.
    """

    def __init__(self, collection: Collection, order: Order) -> None:
        model = collection.concrete_model
        self.order = order
        # the fields that rows are sorted by: those of the order, and those of the key besides
        self.names = sort_names(model, order)
        descending = {field.name for field in order.fields if field.descending}
        self._is_postgres = connections[collection.database].vendor == "postgresql"
        # spec of each field, and whether it is descending
        self._fields: list[tuple[FieldSpec, bool]] = []
        for name in self.names:
            field: Any = model._meta.get_field(name)
            spec = field_spec(field)
            if not spec.ordered or has_custom_conversion(field):
                raise InvalidOrder(f"{name!r} has values that only the database can sort.")
            self._fields.append((spec, name in descending))

    def values(self, image: Image) -> tuple[Any, ...]:
        """Return the values that a row is sorted by, from its stored or decoded image.

        They are JSON values: those of the fields `names`.
        """
        return tuple([image.get(name) for name in self.names])

    def place(self, image: Image) -> Place:
        """Return the place of a row with a stored or decoded image.

        Raises `InvalidOrder` if a value is not valid for its field.
        """
        return self.place_of_values(self.values(image))

    def place_of_values(self, values: Sequence[Any]) -> Place:
        """Return the place of a row with these `values`.

        Raises `InvalidOrder` if they are not valid for the fields.
        """
        try:
            return tuple(
                [
                    _Descending(self._place(spec, raw)) if descending else self._place(spec, raw)
                    for (spec, descending), raw in zip(self._fields, values, strict=True)
                ]
            )
        except (ValueError, TypeError, ArithmeticError) as error:
            raise InvalidOrder("A row has a value that is not valid for its field.") from error

    def _place(self, spec: FieldSpec, raw: Any) -> tuple[Any, ...]:
        if raw is None:
            return _NULL
        if is_nan(spec, raw):
            return _NAN
        value = coerce(spec, raw)
        if spec.compares_as is Kind.ADDRESS and self._is_postgres:
            address = ip_address(str(value))
            return (1, address.version, int(address))
        return (1, value)
