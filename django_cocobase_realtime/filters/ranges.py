"""Finds ranges around a value: which of many ``low <= x <= high`` may hold, without trying all.

Ranges stand by their lower bound, in classes of about the same width, so that only those whose
lower bound lies within one width below the value can hold it. Half-open ranges are classes of
their own. Works on positions, floats that keep the order of what they stand for; bounds are taken
as included, and what is found must still be asked.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(slots=True)
class _Sorted(Generic[T]):
    """Items in the order of a key."""

    keys: list[float]
    items: list[T]

    def add(self, key: float, item: T) -> None:
        place = bisect_right(self.keys, key)
        self.keys.insert(place, key)
        self.items.insert(place, item)

    def discard(self, key: float, item: T) -> None:
        place = bisect_left(self.keys, key)
        while self.items[place] is not item:
            place += 1
        del self.keys[place], self.items[place]


class Ranges(Generic[T]):
    """Items by their range. Costs a search for each class of widths, and what may match."""

    def __init__(self) -> None:
        self._classes: dict[int | None, _Sorted[T]] = {}
        self._above: _Sorted[T] = _Sorted([], [])  # with no lower bound, by the upper one

    def __bool__(self) -> bool:
        return bool(self._classes or self._above.keys)

    def add(self, item: T, low: float, high: float) -> None:
        """Put an item in; either bound may be infinite."""
        if low == LOWEST:
            self._above.add(high, item)
        else:
            self._classes.setdefault(_width(low, high), _Sorted([], [])).add(low, item)

    def discard(self, item: T, low: float, high: float) -> None:
        """Take out an item that is in, with these bounds."""
        if low == LOWEST:
            self._above.discard(high, item)
            return
        width = _width(low, high)
        held = self._classes[width]
        held.discard(low, item)
        if not held.keys:
            del self._classes[width]

    def around(self, value: float) -> Iterator[T]:
        """Items whose range may hold the value; never misses one that does."""
        above = self._above
        yield from above.items[bisect_left(above.keys, value) :]
        for width, held in self._classes.items():
            first = 0
            if width is not None:
                reach = math.ldexp(1.0, width) * SLACK + abs(value) * 1e-12
                first = bisect_left(held.keys, value - reach)
            yield from held.items[first : bisect_right(held.keys, value)]


def _width(low: float, high: float) -> int | None:
    """The class of a width: its power of two; None where it has no end that floats know."""
    width = max(high - low, 0.0)
    if not width <= WIDEST:
        return None
    return max(math.frexp(width)[1], -1000)
