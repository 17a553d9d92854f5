"""An index of intervals: finds those that contain a value, without trying all of them.

Intervals are grouped by width, in powers of two, and sorted by their lower bound. So in each
group only those can contain a value whose lower bound is at most one width below it. Intervals
that are open at one end have groups of their own.

Bounds and values are floats, see `to_float`, and bounds are included. If a bound is exact, see
`is_exact`, the index decides it as the filter would.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

T = TypeVar("T")

SLACK = 1 + 1e-9  # factor of a width, so that rounding hides no interval that touches the value
LOWEST, HIGHEST = -math.inf, math.inf
MAX_WIDTH = 2.0**1000  # wider intervals count as open at the upper end


def to_float(value: Any) -> float | None:
    """Return a float that sorts as the value does, or None if it has none (a text, a boolean).

    Different values may have the same float: see `is_exact`. A datetime is its timestamp, a date
    its ordinal. JSON numbers are given as ``("number", 5)``.
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
    """Return whether no other value of its kind has the same float.

    Floats can express each integer up to 2^53, and each microsecond of this century.
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

    # three parallel lists
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
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
        """Return the items whose interval contains the value; none is wider than ``max_width``."""
        first = bisect_left(self.lows, value - max_width)
        last = bisect_right(self.lows, value)
        reachable = zip(self.highs[first:last], self.items[first:last], strict=True)
        return [item for high, item in reachable if high >= value]


class IntervalIndex(Generic[T]):
    """Items by their interval.

    A lookup costs a binary search per group of widths, and a comparison per interval that starts
    at most one width below the value.
    """

    def __init__(self) -> None:
        # by the exponent of the width; None for those without an upper bound
        self._groups: dict[int | None, _SortedIntervals[T]] = {}
        # without a lower bound: mirrored, so that the upper bound is the lower one
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
        found = self._mirrored.containing(-value, math.inf) if self._mirrored.lows else []
        for exponent, group in self._groups.items():
            max_width = math.inf
            if exponent is not None:
                max_width = math.ldexp(1.0, exponent) * SLACK + abs(value) * 1e-12
            found += group.containing(value, max_width)
        return found


def _width_exponent(low: float, high: float) -> int | None:
    """Return the exponent of the least power of two above the width; None if it is too wide."""
    width = max(high - low, 0.0)
    if not width <= MAX_WIDTH:  # infinite, or not a number
        return None
    return max(math.frexp(width)[1], -1000)
