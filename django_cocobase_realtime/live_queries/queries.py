"""Which result a live query keeps up to date, apart from the filter: a window or aggregates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..filters.order import Order


@dataclass(frozen=True, slots=True)
class WindowQuery:
    """The first documents in an order, or the first after a place in it."""

    # number of documents
    limit: int
    order: Order
    # values of the fields of the order and of the key, as in stored images, after which the window
    # begins; None to begin with the first document
    after: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class AggregateQuery:
    """The number of matching documents, and aggregates of their values, in groups."""

    # names of fields
    sum: tuple[str, ...] = ()
    avg: tuple[str, ...] = ()
    min: tuple[str, ...] = ()
    max: tuple[str, ...] = ()
    # fields whose values make the groups; empty for one group of all documents
    group_by: tuple[str, ...] = ()


LiveQuery = WindowQuery | AggregateQuery
