"""What a filter requires of every row that it matches: a range of a number, a text that occurs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..nodes import And, Condition, Node, Op, all_of
from ..schema import Ref
from .intervals import HIGHEST, LOWEST, exact, position


@dataclass(frozen=True, slots=True)
class Span:
    """A range that every row must lie in, both bounds included."""

    ref: Ref
    low: float
    high: float


def _parts(node: Node) -> Iterable[Node]:
    """What must hold, each."""
    return node.parts if isinstance(node, And) else (node,)


def span_of(node: Node) -> Span | None:
    """The narrowest range that every row must lie in; None where there is none."""
    bounds: dict[Ref, tuple[float, float]] = {}
    for part in _parts(node):
        if not isinstance(part, Condition) or part.op not in _BOUNDS:
            continue
        place = position(part.operand)
        if place is None:
            continue
        if part.op in _BEYOND and exact(part.operand):
            place = math.nextafter(place, _BEYOND[part.op])
        low, high = bounds.get(part.ref, _OPEN)
        upper = part.op in (Op.LT, Op.LTE)
        bounds[part.ref] = (low, min(high, place)) if upper else (max(low, place), high)
    found = [Span(ref, *bound) for ref, bound in bounds.items() if bound != _OPEN]
    return min(found, key=lambda span: span.high - span.low) if found else None


def beside(node: Node, span: Span) -> Node:
    """What is left to be asked of a row in the span: bounds that are exact are kept already."""
    return all_of(
        part
        for part in _parts(node)
        if not isinstance(part, Condition)
        or part.ref != span.ref
        or part.op not in _BOUNDS
        or not exact(part.operand)
    )


def needle_of(node: Node) -> tuple[Ref, str] | None:
    """The longest text that every row must have, without its case; None where there is none."""
    found = [
        (part.ref, str(part.operand))
        for part in _parts(node)
        if isinstance(part, Condition) and part.op in _TEXTUAL and isinstance(part.operand, str)
    ]
    return max(found, key=lambda each: len(each[1])) if found else None


_BOUNDS = frozenset({Op.GT, Op.GTE, Op.LT, Op.LTE})
_BEYOND = {Op.GT: HIGHEST, Op.LT: LOWEST}
_OPEN = (LOWEST, HIGHEST)
_TEXTUAL = frozenset({Op.CONTAINS, Op.STARTS_WITH, Op.ENDS_WITH})
