"""Finds ranges around a value: which of many ``low <= x <= high`` may hold, without trying all.

Ranges stand by their lower bound, in classes of about the same width, so that only those whose
lower bound lies within one width below the value can hold it. Half-open ranges are classes of
their own. Works on positions, floats that keep the order of what they stand for; bounds are
included. Where a bound is `exact`, what is found need not be asked again.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

T = TypeVar("T")

SLACK = 1 + 1e-9  # of a width: rounding must not hide a range that touches the value
LOWEST, HIGHEST = -math.inf, math.inf
WIDEST = 2.0**1000


def position(value: Any) -> float | None:
    """A value's place on a line; None for one that has none (text, true and false)."""
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
            return position(number)
    return None


def exact(value: Any) -> bool:
    """Whether what lies above this value, of its kind, also lies above it as a position.

    Floats have each integer up to 2^53, and each microsecond of this century.
    """
    match value:
        case int() | float():
            return not isinstance(value, bool) and abs(value) < 2**53
        case datetime():
            return abs(value.timestamp()) < 2**32
        case date():
            return True
        case ("number", number):
            return exact(number)
    return False  # decimals have more digits


@dataclass(slots=True)
class _Sorted(Generic[T]):
    """Items in the order of their lower bounds, with their upper ones."""

    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    items: list[T] = field(default_factory=list)

    def add(self, item: T, low: float, high: float) -> None:
        place = bisect_right(self.lows, low)
        self.lows.insert(place, low)
        self.highs.insert(place, high)
        self.items.insert(place, item)

    def discard(self, item: T, low: float) -> None:
        place = bisect_left(self.lows, low)
        while self.items[place] is not item:
            place += 1
        del self.lows[place], self.highs[place], self.items[place]

    def around(self, value: float, reach: float) -> list[T]:
        first = bisect_left(self.lows, value - reach)
        last = bisect_right(self.lows, value)
        holding = zip(self.highs[first:last], self.items[first:last], strict=True)
        return [item for high, item in holding if high >= value]


class Ranges(Generic[T]):
    """Items by their range. Costs a search for each class of widths, and what may match."""

    def __init__(self) -> None:
        self._classes: dict[int | None, _Sorted[T]] = {}
        self._below: _Sorted[T] = _Sorted()  # with no lower bound, upside down

    def __bool__(self) -> bool:
        return bool(self._classes or self._below.lows)

    def add(self, item: T, low: float, high: float) -> None:
        """Put an item in; either bound may be infinite."""
        if low == LOWEST:
            self._below.add(item, -high, HIGHEST)
        else:
            self._classes.setdefault(_width(low, high), _Sorted()).add(item, low, high)

    def discard(self, item: T, low: float, high: float) -> None:
        """Take out an item that is in, with these bounds."""
        if low == LOWEST:
            self._below.discard(item, -high)
            return
        width = _width(low, high)
        held = self._classes[width]
        held.discard(item, low)
        if not held.lows:
            del self._classes[width]

    def around(self, value: float) -> list[T]:
        """Items whose range holds the value."""
        found = self._below.around(-value, math.inf) if self._below.lows else []
        for width, held in self._classes.items():
            reach = math.inf
            if width is not None:
                reach = math.ldexp(1.0, width) * SLACK + abs(value) * 1e-12
            found += held.around(value, reach)
        return found


def _width(low: float, high: float) -> int | None:
    """The class of a width: its power of two; None where it has no end that floats know."""
    width = max(high - low, 0.0)
    if not width <= WIDEST:
        return None
    return max(math.frexp(width)[1], -1000)
