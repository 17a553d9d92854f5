"""Constraints that all rows matching a filter fulfil: an interval of a value, or a substring.

For example, ``{"views": {"gte": 10, "lt": 20}, "title_contains": "news"}`` requires ``views`` to
be in the interval [10, 20), and ``title`` to contain "news". Constraints are read from the
filter's root, and from the parts of a conjunction at the root.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..nodes import And, Condition, Node, all_of
from ..schema import Ref
from .intervals import HIGHEST, LOWEST, is_exact, to_float


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval in which a value of a row must be, as floats. Both bounds are included."""

    # the value
    ref: Ref
    # may be infinite
    low: float
    # may be infinite
    high: float


def required_interval(node: Node) -> Interval | None:
    """Return the narrowest interval that contains a value of every matching row, or None."""
    bounds: dict[Ref, tuple[float, float]] = {}
    for part in _conjuncts(node):
        if not isinstance(part, Condition) or (bound := part.operator.bound) is None:
            continue
        limit = to_float(part.operand)
        if limit is None:
            continue
        if bound.strict and is_exact(part.operand):
            limit = math.nextafter(limit, LOWEST if bound.upper else HIGHEST)
        low, high = bounds.get(part.ref, _UNBOUNDED)
        bounds[part.ref] = (low, min(high, limit)) if bound.upper else (max(low, limit), high)
    intervals = [
        Interval(ref, low, high) for ref, (low, high) in bounds.items() if (low, high) != _UNBOUNDED
    ]
    if not intervals:
        return None
    return min(intervals, key=lambda interval: interval.high - interval.low)


def residual(node: Node, interval: Interval) -> Node:
    """Return what is left to check of a filter after an index lookup.

    The lookup has shown that the indexed field's value is in ``interval``, so the conditions that
    say exactly this are left out.
    """
    return all_of(
        part
        for part in _conjuncts(node)
        if not isinstance(part, Condition)
        or part.ref != interval.ref
        or part.operator.bound is None
        or not is_exact(part.operand)
    )


def required_substring(node: Node) -> tuple[Ref, str] | None:
    """Return the longest text that a value of every matching row must contain, or None.

    The text is folded (see `schema.fold`), and returned after a reference to the value.
    """
    substrings = [
        (part.ref, part.operand)
        for part in _conjuncts(node)
        if isinstance(part, Condition)
        and part.operator.substring
        and isinstance(part.operand, str)  # it is not for `contains` on JSON
    ]
    return max(substrings, key=lambda pair: len(pair[1])) if substrings else None


def _conjuncts(node: Node) -> Iterable[Node]:
    """Return the parts of a conjunction, or the node itself if it is not one."""
    return node.parts if isinstance(node, And) else (node,)


_UNBOUNDED = (LOWEST, HIGHEST)
