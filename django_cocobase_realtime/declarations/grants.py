"""The rows and fields that a collection shows an identity after its permission has decided."""

from __future__ import annotations

from typing import Any

from ..conf import conf
from ..filters import ClientFilters, FilterLimits, MakeKeySet
from .authorization import Decision, Grant


def make_grant(
    collection: Any, decision: Decision, filters: ClientFilters, key_set: MakeKeySet | None
) -> Grant:
    """Return the grant for a decision of a `Collection`'s permission.

    Fields that the permission does not allow are removed from all that clients may name.
    """
    readable, filterable = collection.readable, collection.filterable
    sortable, summable = collection.sortable, collection.summable
    permitted = decision.fields
    if permitted is not None:
        names = sorted(permitted) if readable is None else readable
        readable = tuple(name for name in names if name in permitted)
        filterable = frozenset(n for n in filterable if n.partition(".")[0] in permitted)
        sortable, summable = sortable & permitted, summable & permitted
    limits = conf.limits
    bounds = FilterLimits(limits.filter_clauses, limits.filter_depth, limits.filter_values)
    return Grant(
        decision,
        readable,
        filterable,
        collection.schema,
        collection.codec.key_names,
        collection.stream,
        collection.track,
        None if key_set is None else filters.related(filterable, bounds, key_set),
        collection.paths,
        sortable,
        summable,
    )
