"""The third face of a filter: finds the filters that may match a row, without asking the others.

Each filter stands at places, equalities of which every row that it matches has at least one:
``status = published`` stands at one, ``status in (a, b)`` at two, a conjunction where its most
telling part does, a disjunction at all places of its parts. What has no such place
stands by a range of numbers or moments, where it has one (``ranges``), or by a text that must
occur (``texts``). What has none of these (negations alone) is asked for every row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ...utils.small_set import SmallSet, add_to, added, items, length, remove_from, removed
from ..nodes import ALWAYS, And, Condition, Filter, Node, Op, Or, Place, all_of
from ..predicate import Predicate, compile_node
from ..row import Row
from ..schema import Ref
from .constraints import Span, beside, needle_of, span_of
from .intervals import Ranges, position
from .substrings import Texts

T = TypeVar("T", bound=Hashable)

CROWDED = 16  # neighbours at one's places beyond which a range or a text is better


@dataclass(frozen=True, slots=True)
class Gram:
    """Characters that every row's text must have."""

    ref: Ref
    text: str


Equalities = tuple[Condition, ...]
"""Of which every row must hold one."""


class _Entry(Generic[T]):
    """A filter, its items, where it stands (None: everywhere), and what is left to be asked there.

    ``test`` is None where nothing is left. Filters of which the same is left share it.
    """

    __slots__ = ("filter", "items", "stands", "test")

    def __init__(self, filter: Filter) -> None:
        self.filter = filter
        self.items: SmallSet[T] = None
        self.stands: Equalities | Span | Gram | None = None
        self.test: Predicate | None = None


class FilterIndex(Generic[T]):
    """Items by their filter; items of one filter are found, and judged, together.

    The cost of ``matching`` grows with what it yields, with the number of distinct fields that
    filters stand at, and with the number of distinct filters that stand nowhere.
    """

    def __init__(self) -> None:
        self._entries: dict[Filter, _Entry[T]] = {}
        self._everywhere: dict[_Entry[T], None] = {}
        self._buckets: dict[Ref, dict[Hashable, SmallSet[_Entry[T]]]] = {}
        self._taken: Counter[Ref] = Counter()  # places, each as often as somebody stands there
        self._ranges: dict[Ref, Ranges[_Entry[T]]] = {}
        self._texts: dict[Ref, Texts[_Entry[T]]] = {}

    def __len__(self) -> int:
        return sum(length(entry.items) for entry in self._entries.values())

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, item: T, filter: Filter) -> None:
        """Put an item in, once for each filter."""
        entry = self._entries.get(filter)
        if entry is None:
            entry = self._entries[filter] = self._stand(filter)
        entry.items = added(entry.items, item)

    def discard(self, item: T, filter: Filter) -> None:
        """Take an item out of a filter; nothing where it is not in."""
        entry = self._entries.get(filter)
        if entry is None:
            return
        entry.items = removed(entry.items, item)
        if entry.items is None:
            del self._entries[filter]
            self._leave(entry)

    def known(self, filter: Filter) -> Filter | None:
        """The equal filter that is in already, None where there is none."""
        entry = self._entries.get(filter)
        return None if entry is None else entry.filter

    def matching(self, row: Row) -> list[T]:
        """Items whose filter matches the row, each once a filter."""
        found: list[T] = []
        last: Predicate | None = None
        holds = True
        for entry in self._candidates(row):
            if entry.test is not last:  # neighbours mostly leave the same to be asked
                last = entry.test
                holds = last is None or last(row)
            if holds:
                items = entry.items
                if isinstance(items, dict):
                    found += items
                elif items is not None:
                    found.append(items)
        return found

    def candidates(self, row: Row) -> list[Filter]:
        """Filters that are asked about the row, each once; never misses one that matches."""
        return [entry.filter for entry in self._candidates(row)]

    def _candidates(self, row: Row) -> list[_Entry[T]]:
        found = list(self._everywhere)
        buckets = [
            bucket
            for ref, by_value in self._buckets.items()
            if (bucket := by_value.get(row.get(ref))) is not None
        ]
        if len(buckets) == 1:
            found += items(buckets[0])
        elif buckets:  # a filter may stand at places of several fields
            found += dict.fromkeys(entry for bucket in buckets for entry in items(bucket))
        for ref, ranges in self._ranges.items():
            place = position(row.get(ref))
            if place is not None:
                found += ranges.around(place)
        for ref, texts in self._texts.items():
            text = row.folded(ref)
            if text is not None:
                found += texts.within(text)
        return found

    def _stand(self, filter: Filter) -> _Entry[T]:
        """An entry for the filter, put where it has few neighbours."""
        root = filter.root
        entry: _Entry[T] = _Entry(filter)
        equalities, rest = self._choose(root)
        if equalities is not None and sum(map(self._crowd, _places(equalities))) <= CROWDED:
            self._put(entry, equalities)
        elif (span := span_of(root)) is not None:
            # a value that everybody asks for tells nobody apart
            entry.stands, rest = span, beside(root, span)
            self._ranges.setdefault(span.ref, Ranges()).add(entry, span.low, span.high)
        elif (needle := needle_of(root)) is not None:
            ref, text = needle
            gram = self._texts.setdefault(ref, Texts()).add(entry, text)
            entry.stands, rest = Gram(ref, gram), None
        elif equalities is not None:
            self._put(entry, equalities)
        else:
            self._everywhere[entry] = None
        if rest is None:
            entry.test = filter.matches
        elif rest != ALWAYS:
            entry.test = compile_node(rest)
        return entry

    def _put(self, entry: _Entry[T], equalities: Equalities) -> None:
        entry.stands = equalities
        for ref, value in _places(equalities):
            self._taken[ref] += 1
            add_to(self._buckets.setdefault(ref, {}), value, entry)

    def _leave(self, entry: _Entry[T]) -> None:
        match entry.stands:
            case None:
                del self._everywhere[entry]
            case Span(ref, low, high):
                self._ranges[ref].discard(entry, low, high)
                if not self._ranges[ref]:
                    del self._ranges[ref]
            case Gram(ref, gram):
                self._texts[ref].discard(entry, gram)
                if not self._texts[ref]:
                    del self._texts[ref]
            case stands:
                for ref, value in _places(stands):
                    self._taken[ref] -= 1
                    buckets = self._buckets[ref]
                    remove_from(buckets, value, entry)
                    if not buckets:
                        del self._buckets[ref], self._taken[ref]

    def _choose(self, node: Node) -> tuple[Equalities | None, Node | None]:
        """Equalities of a node, and what is left to be asked of a row found there.

        None where it has none, empty where no row can match. The rest: None for all of the node,
        ALWAYS for nothing.
        """
        match node:
            case Condition(op=Op.IN):
                return (node,), ALWAYS
            case And(parts):
                choices = [(e, part) for part in parts if (e := self._choose(part)[0]) is not None]
                if not choices:
                    return None, None
                equalities, chosen = min(choices, key=lambda choice: self._share(choice[0]))
                if not isinstance(chosen, Condition):
                    return equalities, None
                return equalities, all_of(part for part in parts if part is not chosen)
            case Or(parts):
                joined: Equalities = ()
                for part in parts:
                    of_part, _ = self._choose(part)
                    if of_part is None:
                        return None, None
                    joined += of_part
                return joined, None
        return None, None

    def _crowd(self, place: Place) -> int:
        ref, value = place
        return length(self._buckets.get(ref, {}).get(value))

    def _share(self, equalities: Equalities) -> float:
        """Of how many events these may hold, taking it that they are what filters ask for.

        A value that nobody asked for yet is rare; one of a few that all ask for is not.
        """
        places = _places(equalities)
        return sum((1 + self._crowd(each)) / (self._taken[each[0]] + CROWDED) for each in places)


def _places(equalities: Equalities) -> list[Place]:
    """Each once."""
    return list(dict.fromkeys((each.ref, value) for each in equalities for value in each.operand))
