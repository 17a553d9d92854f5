"""Finds the items whose filter may match a row, without asking those that cannot."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from .expression import Filter, Row

T = TypeVar("T", bound=Hashable)


class FilterIndex(Generic[T]):
    """Items in buckets by one equality of their filter.

    The cost of ``candidates`` grows with what it yields and with the number of distinct fields
    that filters name, not with the number of items. An item whose filter has no equality is a
    candidate for every row.
    """

    def __init__(self) -> None:
        self._everywhere: dict[T, None] = {}
        self._buckets: dict[str, dict[Hashable, dict[T, None]]] = {}
        self._places: dict[T, tuple[str, frozenset[Hashable]] | None] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._places))

    def add(self, item: T, filter: Filter) -> None:
        """Put an item in. One that is in already is put in anew."""
        self.discard(item)
        place = self._place(filter)
        self._places[item] = place
        if not filter.possible:
            return
        if place is None:
            self._everywhere[item] = None
            return
        name, values = place
        buckets = self._buckets.setdefault(name, {})
        for value in values:
            buckets.setdefault(value, {})[item] = None

    def discard(self, item: T) -> None:
        """Take an item out; nothing where it is not in."""
        place = self._places.pop(item, None)
        self._everywhere.pop(item, None)
        if place is None:
            return
        name, values = place
        buckets = self._buckets.get(name, {})
        for value in values:
            bucket = buckets.get(value)
            if bucket is not None:
                bucket.pop(item, None)
                if not bucket:
                    del buckets[value]
        if not buckets:
            self._buckets.pop(name, None)

    def candidates(self, row: Row) -> Iterator[T]:
        """Items whose filter may match the row; never misses one that does."""
        yield from self._everywhere
        for name, buckets in self._buckets.items():
            value = row.get(name)
            if value is not None:
                yield from buckets.get(value, ())

    def _place(self, filter: Filter) -> tuple[str, frozenset[Hashable]] | None:
        """The equality whose buckets are the emptiest: the most selective one so far."""
        if not filter.equalities:
            return None

        def crowd(name: str) -> int:
            buckets = self._buckets.get(name, {})
            return sum(len(buckets.get(value, ())) for value in filter.equalities[name])

        name = min(filter.equalities, key=crowd)
        return name, filter.equalities[name]
