"""The values of one field in one group of an aggregate: their number, total and extremes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

from ..filters.schema import FieldSpec, Kind, Ref
from .queries import AggregateQuery

# a total of integers or decimals
Total = int | Decimal

MAX_SAFE_INTEGER = 2**53 - 1  # that JavaScript can represent
# calculates without rounding: with more digits than a sum can have
EXACT = Context(prec=1000)


@dataclass(frozen=True, slots=True)
class ReadValues:
    """Aggregates of one field in one group, as a query has returned them."""

    # number of values
    n: int
    total: Total | None = None
    # extremes, as in documents
    least: Any = None
    greatest: Any = None


class Extreme:
    """The least or greatest value of a field in a group."""

    __slots__ = ("is_least", "raw", "rows", "value")

    def __init__(self, is_least: bool) -> None:
        self.is_least = is_least
        # None if the group has no value
        self.value: Any = None
        # the value as in documents
        self.raw: Any = None
        # number of rows that are known to have the value; others may have it, too
        self.rows = 0

    def add(self, value: Any, raw: Any) -> bool:
        """Take a value into account, and return whether it is the extreme from now on."""
        current = self.value
        if value == current:
            self.rows += 1
            return False
        if current is not None and (value > current) is self.is_least:
            return False
        self.value, self.raw, self.rows = value, raw, 1
        return True

    def remove(self, value: Any) -> bool:
        """Return whether the extreme is unknown without a row that had a value."""
        if value != self.value:
            return False
        self.rows -= 1
        return self.rows <= 0

    def clear(self) -> None:
        """Forget the value, because no row has one."""
        self.value, self.raw, self.rows = None, None, 0


class FieldValues:
    """The values of one field in one group."""

    __slots__ = ("greatest", "least", "n", "total")

    def __init__(self, field: AggregatedField) -> None:
        # number of values
        self.n = 0
        self.total: Total | None = field.zero
        self.least = Extreme(True) if field.has_least else None
        self.greatest = Extreme(False) if field.has_greatest else None

    def add_read(self, read: ReadValues, least: Any, greatest: Any) -> None:
        """Add what a query has returned. ``least`` and ``greatest`` are its extremes, coerced."""
        self.n += read.n
        if read.total is not None and self.total is not None:
            self.total = sum_of(self.total, None, read.total)
        if self.least is not None and least is not None:
            self.least.add(least, read.least)
        if self.greatest is not None and greatest is not None:
            self.greatest.add(greatest, read.greatest)

    # JSON values, as in documents; None if there is no value

    @property
    def sum(self) -> Any:
        """The total."""
        total = self.total
        if not self.n or total is None:
            return None
        if isinstance(total, Decimal):
            return format(total, "f")
        return total if -MAX_SAFE_INTEGER <= total <= MAX_SAFE_INTEGER else str(total)

    @property
    def min(self) -> Any:
        """The least value."""
        return None if self.least is None else self.least.raw

    @property
    def max(self) -> Any:
        """The greatest value."""
        return None if self.greatest is None else self.greatest.raw

    @property
    def state(self) -> tuple[Any, ...]:
        """All values, to compare them with those of another reading."""
        extremes = (self.least, self.greatest)
        return (self.n, self.total, *(e and e.value for e in extremes))


@dataclass(frozen=True, slots=True)
class AggregatedField:
    """A field whose values are aggregated."""

    name: str
    ref: Ref
    # the total of no values; None if no total is needed
    zero: Total | None
    has_least: bool
    has_greatest: bool

    def change(self, values: FieldValues, old: Any, new: Any, raw: Any) -> tuple[bool, bool]:
        """Replace a value by another one, which is ``raw`` in documents; None is no value.

        Returns whether the aggregates have changed, and whether an extreme is now unknown.
        """
        if old == new:
            return False, False
        if old is None:
            values.n += 1
        elif new is None:
            values.n -= 1
        if self.zero is not None:
            values.total = sum_of(values.total or self.zero, old, new)
        if not (self.has_least or self.has_greatest):
            return True, False
        has_changed = self.zero is not None
        is_unknown = False
        for extreme in (values.least, values.greatest):
            if extreme is None:
                continue
            # first the new value, because it may be beyond the old one
            if new is not None and extreme.add(new, raw):
                has_changed = True
            if old is not None and extreme.remove(old):
                has_changed = True
                if values.n:
                    is_unknown = True
                else:
                    extreme.clear()
        return has_changed, is_unknown


def sum_of(total: Total, minus: Total | None, plus: Total | None) -> Total:
    """Return a total without one value, and with another one; None is no value."""
    if isinstance(total, int):
        return total + (plus or 0) - (minus or 0)
    if minus is not None:
        total = EXACT.subtract(total, minus)
    return total if plus is None else EXACT.add(total, plus)


def aggregated_field(query: AggregateQuery, spec: FieldSpec) -> AggregatedField:
    """Return what a query aggregates of a field."""
    name = spec.name
    zero: Total | None = None
    if name in query.sum or name in query.avg:
        zero = Decimal(0) if spec.kind is Kind.DECIMAL else 0
    return AggregatedField(name, spec.ref, zero, name in query.min, name in query.max)
