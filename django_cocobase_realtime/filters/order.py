"""The order of documents: by the values of several fields, each ascending or descending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .schema import Schema

MAX_ORDER_FIELDS = 5


class InvalidOrder(ValueError):
    """A text is not a valid order. The message is for the client."""


@dataclass(frozen=True, slots=True)
class OrderField:
    """A field to sort by."""

    name: str
    descending: bool = False

    def __str__(self) -> str:
        return f"-{self.name}" if self.descending else self.name


@dataclass(frozen=True, slots=True)
class Order:
    """The fields to sort by, the most important one first.

    Rows that are equal in all of them are sorted by the primary key, which is not among the fields.
    Nulls sort lowest, and texts by code points. Without fields, rows are sorted by key alone.
    """

    fields: tuple[OrderField, ...] = ()

    def __str__(self) -> str:
        return ",".join(map(str, self.fields))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(field.name for field in self.fields)


BY_KEY = Order()


def parse_order(
    order: str | Sequence[str] | None, schema: Schema, allowed: frozenset[str]
) -> Order:
    """Return the order in a request: names of fields, with a leading ``-`` for descending order.

    ``order`` is a list of names, or one text with commas between them. ``allowed`` are the fields
    of the ``schema`` that may be used, as far as their values have an order. Raises `InvalidOrder`.
    """
    if order is None:
        return Order()
    texts = [text.strip() for text in order.split(",")] if isinstance(order, str) else list(order)
    fields = [OrderField(text.removeprefix("-"), text.startswith("-")) for text in texts]
    sortable = sorted(name for name, spec in schema.items() if name in allowed and spec.ordered)
    names = [field.name for field in fields]
    for field in fields:
        if field.name not in sortable:
            raise InvalidOrder(f"order {str(field)!r} is not allowed; use some of {sortable}.")
    if len(set(names)) < len(names):
        raise InvalidOrder("order names a field twice.")
    if len(fields) > MAX_ORDER_FIELDS:
        raise InvalidOrder(f"order may have {MAX_ORDER_FIELDS} fields at most.")
    return Order(tuple(fields))
