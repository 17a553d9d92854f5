"""An index of intervals, which finds those that contain a value without trying all of them.

Intervals are grouped by width, in powers of two, and each group is sorted by lower bound. In a
group, an interval can contain a value only if its lower bound is at most one width below it.
Intervals without an upper or lower bound have groups of their own.

Bounds and values are floats, see `to_float`, and bounds are included. If a bound is exact, see
`is_exact`, the index finds exactly the intervals that contain the value.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

T = TypeVar("T")

SLACK = 1 + 1e-9  # factor for widths, so that no interval is missed because of rounding
LOWEST, HIGHEST = -math.inf, math.inf
MAX_WIDTH = 2.0**1000  # wider intervals are treated as if they had no upper bound


def to_float(value: Any) -> float | None:
    """Return a float that sorts like the value, or None for texts, booleans and other values.

    Different values may have the same float, see `is_exact`. For a datetime it is the timestamp,
    and for a date the ordinal. JSON numbers are given as ``("number", 5)``.
    """
    match value:
        case bool() | None:
            return None
        case int() | float() | Decimal():
            try:
                return float(value)
            except OverflowError:
                return math.inf if value > 0 else -math.inf
        case datetime():
            return value.timestamp()
        case date():
            return float(value.toordinal())
        case ("number", number):
            return to_float(number)
    return None


def is_exact(value: Any) -> bool:
    """Return whether `to_float` returns another float for each other value of the same kind.

    Floats can represent each integer up to 2^53, and each microsecond of this century.
    """
    match value:
        case int() | float():
            return not isinstance(value, bool) and abs(value) < 2**53
        case datetime():
            return abs(value.timestamp()) < 2**32
        case date():
            return True
        case ("number", number):
            return is_exact(number)
    return False  # decimals may have more digits than floats


@dataclass(slots=True)
class _SortedIntervals(Generic[T]):
    """Items with their intervals, sorted by lower bound."""

    # lower bounds
    lows: list[float] = field(default_factory=list)
    # upper bounds, in the order of the lower ones
    highs: list[float] = field(default_factory=list)
    # items, in the same order
    items: list[T] = field(default_factory=list)

    def add(self, item: T, low: float, high: float) -> None:
        index = bisect_right(self.lows, low)
        self.lows.insert(index, low)
        self.highs.insert(index, high)
        self.items.insert(index, item)

    def discard(self, item: T, low: float) -> None:
        index = bisect_left(self.lows, low)
        while self.items[index] is not item:
            index += 1
        del self.lows[index], self.highs[index], self.items[index]

    def containing(self, value: float, max_width: float) -> list[T]:
        """Return the items whose interval contains the value.

        No interval may be wider than ``max_width``.
        """
        first = bisect_left(self.lows, value - max_width)
        last = bisect_right(self.lows, value)
        candidates = zip(self.highs[first:last], self.items[first:last], strict=True)
        return [item for high, item in candidates if high >= value]


class IntervalIndex(Generic[T]):
    """Items by their interval.

    A lookup costs a binary search per group, and a comparison per interval whose lower bound is
    at most one width below the value.
    """

    def __init__(self) -> None:
        # by the exponent of the width; under None, intervals without an upper bound
        self._groups: dict[int | None, _SortedIntervals[T]] = {}
        # intervals without a lower bound, negated, so that the upper bound becomes the lower one
        self._mirrored: _SortedIntervals[T] = _SortedIntervals()

    def __bool__(self) -> bool:
        return bool(self._groups or self._mirrored.lows)

    def add(self, item: T, low: float, high: float) -> None:
        """Add an item with its interval. Either bound may be infinite."""
        if low == LOWEST:
            self._mirrored.add(item, -high, HIGHEST)
        else:
            group = self._groups.setdefault(_width_exponent(low, high), _SortedIntervals())
            group.add(item, low, high)

    def discard(self, item: T, low: float, high: float) -> None:
        """Remove an item that was added with this interval."""
        if low == LOWEST:
            self._mirrored.discard(item, -high)
            return
        exponent = _width_exponent(low, high)
        group = self._groups[exponent]
        group.discard(item, low)
        if not group.lows:
            del self._groups[exponent]

    def containing(self, value: float) -> list[T]:
        """Return the items whose interval contains the value."""
        containing = self._mirrored.containing(-value, math.inf) if self._mirrored.lows else []
        for exponent, group in self._groups.items():
            max_width = math.inf
            if exponent is not None:
                max_width = math.ldexp(1.0, exponent) * SLACK + abs(value) * 1e-12
            containing += group.containing(value, max_width)
        return containing


def _width_exponent(low: float, high: float) -> int | None:
    """Return the exponent of the smallest power of two above the width, or None if too wide."""
    width = max(high - low, 0.0)
    if not width <= MAX_WIDTH:  # infinite, or not a number
        return None
    return max(math.frexp(width)[1], -1000)
