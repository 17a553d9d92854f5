"""Requests for aggregates: which fields they may name."""

from __future__ import annotations

from collections.abc import Iterable, Set

from ..filters.schema import Kind, Schema
from ..wire.commands import Aggregate
from .queries import AggregateQuery

MAX_NAMES = 5  # for each kind of aggregate, and of fields that make groups

# kinds of values whose sums are exact
SUMMABLE_KINDS = frozenset({Kind.INTEGER, Kind.DECIMAL})
# kinds of values of which databases and Python know the same extremes
EXTREME_KINDS = SUMMABLE_KINDS | {Kind.FLOAT, Kind.DATETIME, Kind.DATE, Kind.TIME, Kind.TEXT}
# kinds of values that make no groups: databases and filters may count different ones as equal
UNGROUPED_KINDS = frozenset({Kind.JSON, Kind.FLOAT, Kind.OPAQUE})


class InvalidAggregate(ValueError):
    """A request for aggregates is not valid. The message is for the client."""


def parse_aggregate(
    request: Aggregate, schema: Schema, aggregates: Set[str], filters: Set[str]
) -> AggregateQuery:
    """Return the query for a request. Raises `InvalidAggregate`.

    ``aggregates`` are the fields of the ``schema`` that may be aggregated, as far as their values
    allow it, and ``filters`` are those that may make groups.
    """
    summable = [name for name in aggregates if schema[name].kind in SUMMABLE_KINDS]
    comparable = [name for name in aggregates if schema[name].compares_as in EXTREME_KINDS]
    grouping = [
        name
        for name in filters
        if name in schema and schema[name].compares_as not in UNGROUPED_KINDS
    ]
    return AggregateQuery(
        sum=_names("sum", request.sum, summable),
        avg=_names("avg", request.avg, summable),
        min=_names("min", request.min, comparable),
        max=_names("max", request.max, comparable),
        group_by=_names("group_by", request.group_by, grouping),
    )


def _names(key: str, names: list[str], allowed: Iterable[str]) -> tuple[str, ...]:
    """Return the names in a key of a request, if all of them are allowed."""
    allowed = sorted(allowed)
    for name in names:
        if name not in allowed:
            raise InvalidAggregate(f"{key} {name!r} is not allowed; use some of {allowed}.")
    if len(set(names)) < len(names):
        raise InvalidAggregate(f"{key} names a field twice.")
    if len(names) > MAX_NAMES:
        raise InvalidAggregate(f"{key} may have {MAX_NAMES} fields at most.")
    return tuple(names)
