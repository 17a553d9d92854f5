"""The third face of a filter: finds the filters that may match a row, without asking the others.

Each filter stands at places, equalities of which every row that it matches has at least one:
``status = published`` stands at one, ``status in (a, b)`` at two, a conjunction where its part
with the fewest neighbours does, a disjunction at all places of its parts. What has no such place
stands by a range of numbers or moments, where it has one (``ranges``). What has neither (texts and
negations alone) is asked for every row.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from .expression import ALWAYS, And, Condition, Filter, Node, Op, Or, Place, all_of
from .predicate import Predicate, compile_node
from .ranges import HIGHEST, LOWEST, Ranges, position
from .row import Row
from .schema import Ref

T = TypeVar("T", bound=Hashable)
Range = tuple[Ref, float, float]
"""What lies between which positions, both included."""


CROWDED = 16  # neighbours at one's places beyond which a range, where there is one, is better


class _Entry(Generic[T]):
    """A filter, its items, and what is left to be asked where it stands; None for nothing."""

    __slots__ = ("filter", "members", "places", "range", "test")

    def __init__(
        self,
        filter: Filter,
        places: tuple[Place, ...] | None,
        range: Range | None,
        test: Predicate | None,
    ) -> None:
        self.filter = filter
        self.places = places
        self.range = range
        self.test = test
        self.members: dict[T, None] = {}


Bucket = _Entry[T] | dict[_Entry[T], None]
"""Those that stand at one place: mostly one, and a dictionary of one is four times as large."""


class FilterIndex(Generic[T]):
    """Items by their filter; items of one filter are found, and judged, together.

    The cost of ``matching`` grows with what it yields, with the number of distinct fields that
    filters stand at, and with the number of distinct filters that have no place.
    """

    def __init__(self) -> None:
        self._entries: dict[Filter, _Entry[T]] = {}
        self._filters: dict[T, Filter] = {}
        self._everywhere: dict[_Entry[T], None] = {}
        self._buckets: dict[Ref, dict[Hashable, Bucket[T]]] = {}
        self._ranges: dict[Ref, Ranges[_Entry[T]]] = {}

    def __len__(self) -> int:
        return len(self._filters)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._filters))

    def add(self, item: T, filter: Filter) -> None:
        """Put an item in. One that is in already is put in anew."""
        self.discard(item)
        entry = self._entries.get(filter)
        if entry is None:
            entry = self._entries[filter] = self._stand(filter)
        self._filters[item] = entry.filter
        entry.members[item] = None

    def discard(self, item: T) -> None:
        """Take an item out; nothing where it is not in."""
        filter = self._filters.pop(item, None)
        if filter is None:
            return
        entry = self._entries[filter]
        entry.members.pop(item, None)
        if not entry.members:
            del self._entries[filter]
            self._leave(entry)

    def known(self, filter: Filter) -> Filter | None:
        """The equal filter that is in already, None where there is none."""
        entry = self._entries.get(filter)
        return None if entry is None else entry.filter

    def matching(self, row: Row) -> list[T]:
        """Items whose filter matches the row, each once."""
        found: list[T] = []
        for entry in self._candidates(row):
            test = entry.test
            if test is None or test(row):
                found += entry.members
        return found

    def candidates(self, row: Row) -> list[Filter]:
        """Filters that are asked about the row, each once; never misses one that matches."""
        return [entry.filter for entry in self._candidates(row)]

    def _candidates(self, row: Row) -> Iterable[_Entry[T]]:
        found: list[dict[_Entry[T], None]] = [self._everywhere] if self._everywhere else []
        for ref, buckets in self._buckets.items():
            bucket = buckets.get(row.get(ref))
            if bucket is not None:
                found.append({bucket: None} if isinstance(bucket, _Entry) else bucket)
        for ref, ranges in self._ranges.items():
            place = position(row.get(ref))
            if place is not None:
                found.append(dict.fromkeys(ranges.around(place)))
        if len(found) == 1:
            return found[0]
        # a filter may stand at places of several fields
        merged: dict[_Entry[T], None] = {}
        for bucket in found:
            merged |= bucket
        return merged

    def _stand(self, filter: Filter) -> _Entry[T]:
        places, rest = self._choose(filter.root)
        range = None
        if places is None or self._crowd(places) > len(places) + CROWDED:
            # a value that everybody asks for tells nobody apart
            range = _range(filter.root)
        if range is not None:
            places, rest = None, None
        test: Predicate | None = None
        if rest is None:
            test = filter.matches
        elif rest != ALWAYS:
            test = compile_node(rest)
        entry: _Entry[T] = _Entry(filter, places, range, test)
        if range is not None:
            ref, low, high = range
            self._ranges.setdefault(ref, Ranges()).add(entry, low, high)
        elif places is None:
            self._everywhere[entry] = None
        for ref, value in places or ():
            buckets = self._buckets.setdefault(ref, {})
            held = buckets.get(value)
            if held is None:
                buckets[value] = entry
            elif isinstance(held, _Entry):
                buckets[value] = {held: None, entry: None}
            else:
                held[entry] = None
        return entry

    def _leave(self, entry: _Entry[T]) -> None:
        self._everywhere.pop(entry, None)
        if entry.range is not None:
            ref, low, high = entry.range
            self._ranges[ref].discard(entry, low, high)
            if not self._ranges[ref]:
                del self._ranges[ref]
        for ref, value in entry.places or ():
            buckets = self._buckets[ref]
            held = buckets[value]
            if not isinstance(held, _Entry):
                held.pop(entry, None)
            if held is entry or not held:
                del buckets[value]
            if not buckets:
                del self._buckets[ref]

    def _choose(self, node: Node) -> tuple[tuple[Place, ...] | None, Node | None]:
        """Places of a node, and what is left to be asked of a row found there.

        Places: None where it has none, empty where no row can match. The rest: None for all of
        the node, ALWAYS for nothing.
        """
        match node:
            case Condition(ref=ref, op=Op.IN, operand=values):
                return tuple((ref, value) for value in values), ALWAYS
            case And(parts):
                choices = [(p, part) for part in parts if (p := self._choose(part)[0]) is not None]
                if not choices:
                    return None, None
                places, chosen = min(choices, key=lambda choice: self._crowd(choice[0]))
                if not isinstance(chosen, Condition):
                    return places, None
                return places, all_of(part for part in parts if part is not chosen)
            case Or(parts):
                joined: dict[Place, None] = {}
                for part in parts:
                    places_of_part, _ = self._choose(part)
                    if places_of_part is None:
                        return None, None
                    joined |= dict.fromkeys(places_of_part)
                return tuple(joined), None
        return None, None

    def _crowd(self, places: tuple[Place, ...]) -> int:
        crowd = 0
        for ref, value in places:
            held = self._buckets.get(ref, {}).get(value)
            crowd += 1 if held is None else 2 if isinstance(held, _Entry) else 1 + len(held)
        return crowd


def _range(node: Node) -> Range | None:
    """The narrowest range that every row must lie in; None where there is none."""
    bounds: dict[Ref, tuple[float, float]] = {}
    for part in node.parts if isinstance(node, And) else (node,):
        if not isinstance(part, Condition) or part.op not in _BOUNDS:
            continue
        place = position(part.operand)
        if place is None:
            continue
        low, high = bounds.get(part.ref, (LOWEST, HIGHEST))
        upper = part.op in (Op.LT, Op.LTE)
        bounds[part.ref] = (low, min(high, place)) if upper else (max(low, place), high)
    found = [(ref, low, high) for ref, (low, high) in bounds.items() if (low, high) != _OPEN]
    return min(found, key=lambda each: each[2] - each[1]) if found else None


_BOUNDS = frozenset({Op.GT, Op.GTE, Op.LT, Op.LTE})
_OPEN = (LOWEST, HIGHEST)
