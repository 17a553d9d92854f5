"""The third face of a filter: finds the filters that may match a row, without asking the others.

Each filter stands at places, equalities of which every row that it matches has at least one:
``status = published`` stands at one, ``status in (a, b)`` at two, a conjunction where its part
with the fewest neighbours does, a disjunction at all places of its parts. What has no such place
(ranges, texts, negations alone) is asked for every row.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from .expression import And, Condition, Filter, Node, Op, Or, Place
from .row import Row
from .schema import Ref

T = TypeVar("T", bound=Hashable)


class FilterIndex(Generic[T]):
    """Items by their filter; items of one filter are found, and judged, together.

    The cost of ``matching`` grows with what it yields, with the number of distinct fields that
    filters stand at, and with the number of distinct filters that have no place.
    """

    def __init__(self) -> None:
        self._members: dict[Filter, dict[T, None]] = {}
        self._filters: dict[T, Filter] = {}
        self._places: dict[Filter, tuple[Place, ...] | None] = {}
        self._everywhere: dict[Filter, None] = {}
        self._buckets: dict[Ref, dict[Hashable, dict[Filter, None]]] = {}

    def __len__(self) -> int:
        return len(self._filters)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._filters))

    def add(self, item: T, filter: Filter) -> None:
        """Put an item in. One that is in already is put in anew."""
        self.discard(item)
        self._filters[item] = filter
        members = self._members.get(filter)
        if members is None:
            members = self._members[filter] = {}
            self._stand(filter)
        members[item] = None

    def discard(self, item: T) -> None:
        """Take an item out; nothing where it is not in."""
        filter = self._filters.pop(item, None)
        if filter is None:
            return
        members = self._members[filter]
        members.pop(item, None)
        if not members:
            del self._members[filter]
            self._leave(filter)

    def matching(self, row: Row) -> Iterator[T]:
        """Items whose filter matches the row, each once."""
        for filter in self.candidates(row):
            if filter.matches(row):
                yield from self._members[filter]

    def candidates(self, row: Row) -> Iterator[Filter]:
        """Filters that may match the row, each once; never misses one that does."""
        yield from self._everywhere
        found: list[dict[Filter, None]] = []
        for ref, buckets in self._buckets.items():
            bucket = buckets.get(row.get(ref))
            if bucket is not None:
                found.append(bucket)
        if len(found) == 1:
            yield from found[0]
        elif found:
            # a filter may stand at places of several fields
            merged: dict[Filter, None] = {}
            for bucket in found:
                merged |= bucket
            yield from merged

    def _stand(self, filter: Filter) -> None:
        places = self._places[filter] = self._choose(filter.root)
        if places is None:
            self._everywhere[filter] = None
            return
        for ref, value in places:
            self._buckets.setdefault(ref, {}).setdefault(value, {})[filter] = None

    def _leave(self, filter: Filter) -> None:
        places = self._places.pop(filter)
        self._everywhere.pop(filter, None)
        for ref, value in places or ():
            buckets = self._buckets[ref]
            bucket = buckets[value]
            bucket.pop(filter, None)
            if not bucket:
                del buckets[value]
            if not buckets:
                del self._buckets[ref]

    def _choose(self, node: Node) -> tuple[Place, ...] | None:
        """Places of a node; None where it has none, empty where no row can match."""
        match node:
            case Condition(ref=ref, op=Op.IN, operand=values):
                return tuple((ref, value) for value in values)
            case And(parts):
                choices = [c for c in map(self._choose, parts) if c is not None]
                return min(choices, key=self._crowd) if choices else None
            case Or(parts):
                joined: dict[Place, None] = {}
                for part in parts:
                    places = self._choose(part)
                    if places is None:
                        return None
                    joined |= dict.fromkeys(places)
                return tuple(joined)
        return None

    def _crowd(self, places: tuple[Place, ...]) -> int:
        return sum(len(self._buckets.get(ref, {}).get(value, ())) + 1 for ref, value in places)
