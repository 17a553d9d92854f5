"""Checks of the options for live queries: ``orders``, ``order_fields`` and ``aggregates``."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.checks import CheckMessage

from ..declarations.collection import Collection
from ..filters.order import InvalidOrder, parse_order
from ..log.row_order import RowOrder
from .base import error, warning


def check_live_options(name: str, collection: Collection) -> Iterator[CheckMessage]:
    """Check what the options name. The collection has no other mistake."""
    schema = collection.schema
    for option in ("order_fields", "aggregates"):
        names = getattr(collection, option) or ()
        without_order = [n for n in names if n not in schema or not schema[n].ordered]
        if without_order:
            yield error(
                108,
                f"Collection {name!r}: '{option}' names {without_order}, whose values have no "
                "order.",
                "Name fields of the row with texts, numbers, booleans, times or keys.",
            )
    orders = collection.orders
    if isinstance(orders, str) or not all(isinstance(order, str) for order in orders):
        yield error(
            4,
            f"Collection {name!r}: 'orders' must be a list of orders.",
            'An order is a text such as "-priority,created_at".',
        )
        return
    for order in orders:
        yield from _check_order(name, collection, order)


def _check_order(name: str, collection: Collection, text: str) -> Iterator[CheckMessage]:
    try:
        order = parse_order(text, collection.schema, collection.sortable)
    except InvalidOrder as problem:
        yield error(
            108,
            f"Collection {name!r}: 'orders' has one that clients cannot use: {problem}",
            "Name its fields in 'order_fields', or correct it.",
        )
        return
    try:
        RowOrder(collection, order)
    except InvalidOrder as problem:
        yield warning(
            110,
            f"Collection {name!r}: windows cannot be sorted by {text!r}: {problem}",
            "Only snapshots can. A field of Django itself, without a 'from_db_value', can be "
            "sorted by in windows.",
        )
