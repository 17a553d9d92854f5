"""The index, which finds the filters that match a row without evaluating all of them.

Each filter is stored in one of four ways, together with the part of it that must still be tested
for rows that are found:

- under index keys, which are values of which every matching row has at least one:
  ``status = "a"`` is stored under one key, ``status in ("a", "b")`` under two, a conjunction under
  the keys of its most selective part, a disjunction under the keys of all its parts. Instead of
  keys, it may be stored under a key set, which leads to all its keys (``key_sets``)
- by an interval of a number, date or datetime (``intervals``)
- by a substring of a text (``substrings``)
- if it requires none of these, for example because it is a negation, in a list of filters that
  are tested for every row
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Generic, TypeVar

from ...utils.small_set import SmallSet, add_to, added, items, length, remove_from, removed
from ..filter import Filter, log_failure
from ..nodes import ALWAYS, And, Condition, InKeySet, Node, Or, all_of
from ..predicate import compile_node
from ..row import Predicate, Row
from ..schema import Ref, key_of
from .constraints import Interval, required_interval, required_substring, residual
from .intervals import IntervalIndex, to_float
from .key_sets import KeySetIndex
from .substrings import SubstringIndex

T = TypeVar("T", bound=Hashable)

# number of filters under a filter's keys above which it is stored by interval or substring instead
MAX_BUCKET_SIZE = 16

# the key of a value in a row, such as (("status",), "published")
IndexKey = tuple[Ref, Hashable]

# conditions with ``in`` or with a key set, of which every matching row fulfils at least one
Equalities = tuple[Condition | InKeySet, ...]


@dataclass(frozen=True, slots=True)
class Trigram:
    """Up to three characters that a value of every matching row contains."""

    # the value
    ref: Ref
    text: str


class _Entry(Generic[T]):
    """A filter in the index, with its items."""

    __slots__ = ("filter", "items", "position", "test")

    def __init__(self, filter: Filter) -> None:
        self.filter = filter
        self.items: SmallSet[T] = None
        # what the filter is stored under; None if it is tested for every row
        self.position: Equalities | Interval | Trigram | None = None
        # the part that must be tested for rows that are found; None if all of them match. Entries
        # with equal tests mostly share one function
        self.test: Predicate | None = None


class FilterIndex(Generic[T]):
    """A collection of items, each with a filter, that finds the items whose filter matches a row.

    Equal filters are evaluated once. The cost of `matching` grows with the number of items that it
    returns, of fields in index keys, and of different filters that are tested for every row.
    """

    def __init__(self) -> None:
        self._entries: dict[Filter, _Entry[T]] = {}
        # entries that are tested for every row, as keys of a dictionary, which keeps their order
        self._unindexed: dict[_Entry[T], None] = {}
        # entries by index key
        self._buckets: dict[Ref, dict[Hashable, SmallSet[_Entry[T]]]] = {}
        # number of entries in the buckets of a field, where an entry counts once per key
        self._key_counts: Counter[Ref] = Counter()
        # entries by key set
        self._key_sets: dict[Ref, KeySetIndex[_Entry[T]]] = {}
        # number of entries that a row may find in several places: disjunctions of several fields or
        # key sets
        self._spread = 0
        # entries by interval
        self._intervals: dict[Ref, IntervalIndex[_Entry[T]]] = {}
        # entries by substring
        self._substrings: dict[Ref, SubstringIndex[_Entry[T]]] = {}

    def __len__(self) -> int:
        return sum(length(entry.items) for entry in self._entries.values())

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, item: T, filter: Filter) -> None:
        """Add an item with its filter. An item may be added with several filters."""
        entry = self._entries.get(filter)
        if entry is None:
            entry = self._entries[filter] = self._insert(filter)
        entry.items = added(entry.items, item)

    def discard(self, item: T, filter: Filter) -> None:
        """Remove an item that was added with this filter, if it is there."""
        entry = self._entries.get(filter)
        if entry is None:
            return
        entry.items = removed(entry.items, item)
        if entry.items is None:
            del self._entries[filter]
            self._remove(entry)

    def find_equal(self, filter: Filter) -> Filter | None:
        """Return the filter in the index that equals this one, or None.

        Callers use the returned object instead of their own, to save memory.
        """
        entry = self._entries.get(filter)
        return None if entry is None else entry.filter

    def matching(self, row: Row) -> list[T]:
        """Return the items whose filter matches the row, each once per filter."""
        matching: list[T] = []
        last_test: Predicate | None = None
        matches = True
        for entry in self._candidates(row):
            if entry.test is not last_test:  # adjacent entries mostly share their test
                last_test = entry.test
                try:
                    matches = last_test is None or last_test(row)
                except Exception as error:  # the other filters must still be evaluated
                    log_failure(error)
                    matches = False
            if matches:
                items = entry.items
                if isinstance(items, dict):
                    matching += items
                elif items is not None:
                    matching.append(items)
        return matching

    def candidates(self, row: Row) -> list[Filter]:
        """Return the filters that may match the row: all that match, and some others."""
        return [entry.filter for entry in self._candidates(row)]

    def _candidates(self, row: Row) -> list[_Entry[T]]:
        candidates = list(self._unindexed)
        buckets: list[SmallSet[_Entry[T]]] = []
        for ref, by_key in self._buckets.items():
            if (bucket := by_key.get(row.key(ref))) is not None:
                buckets.append(bucket)
        for ref, key_sets in self._key_sets.items():
            buckets += key_sets.containing(row.key(ref))
        if len(buckets) > 1 and self._spread:
            candidates += dict.fromkeys(entry for bucket in buckets for entry in items(bucket))
        else:
            for bucket in buckets:
                if isinstance(bucket, dict):
                    candidates += bucket
                elif bucket is not None:
                    candidates.append(bucket)
        for ref, intervals in self._intervals.items():
            value = to_float(row.get(ref))
            if value is not None:
                candidates += intervals.containing(value)
        for ref, substrings in self._substrings.items():
            text = row.folded(ref)
            if text is not None:
                candidates += substrings.occurring_in(text)
        return candidates

    def _insert(self, filter: Filter) -> _Entry[T]:
        """Store a filter in the most selective way that it allows, and return its entry."""
        root = filter.root
        entry: _Entry[T] = _Entry(filter)
        equalities, rest = self._find_equalities(root)
        if equalities is not None and self._count_beside(equalities) <= MAX_BUCKET_SIZE:
            self._insert_under_keys(entry, equalities)
        elif (interval := required_interval(root)) is not None:
            # preferred to keys that many filters share, which would exclude few of them
            entry.position, rest = interval, residual(root, interval)
            intervals = self._intervals.setdefault(interval.ref, IntervalIndex())
            intervals.add(entry, interval.low, interval.high)
        elif (required := required_substring(root)) is not None:
            ref, substring = required
            substrings = self._substrings.setdefault(ref, SubstringIndex())
            entry.position, rest = Trigram(ref, substrings.add(entry, substring)), None
        elif equalities is not None:
            self._insert_under_keys(entry, equalities)
        else:
            self._unindexed[entry] = None
        if rest is None:
            entry.test = compile_node(root)
        elif rest != ALWAYS:
            entry.test = compile_node(rest)
        return entry

    def _insert_under_keys(self, entry: _Entry[T], equalities: Equalities) -> None:
        entry.position = equalities
        for ref, value in _index_keys(equalities):
            self._key_counts[ref] += 1
            add_to(self._buckets.setdefault(ref, {}), value, entry)
        for condition in _key_set_conditions(equalities):
            key_sets = self._key_sets.setdefault(condition.ref, KeySetIndex())
            key_sets.add(entry, condition.key_set)
        self._spread += _is_spread(equalities)

    def _remove(self, entry: _Entry[T]) -> None:
        match entry.position:
            case None:
                del self._unindexed[entry]
            case Interval(ref, low, high):
                self._intervals[ref].discard(entry, low, high)
                if not self._intervals[ref]:
                    del self._intervals[ref]
            case Trigram(ref, text):
                self._substrings[ref].discard(entry, text)
                if not self._substrings[ref]:
                    del self._substrings[ref]
            case equalities:
                self._spread -= _is_spread(equalities)
                for ref, value in _index_keys(equalities):
                    self._key_counts[ref] -= 1
                    buckets = self._buckets[ref]
                    remove_from(buckets, value, entry)
                    if not buckets:
                        del self._buckets[ref], self._key_counts[ref]
                for condition in _key_set_conditions(equalities):
                    key_sets = self._key_sets[condition.ref]
                    key_sets.discard(entry, condition.key_set)
                    if not key_sets:
                        del self._key_sets[condition.ref]

    def _find_equalities(self, node: Node) -> tuple[Equalities | None, Node | None]:
        """Return a node's equalities, and the rest of the node for rows that fulfil one of them.

        The equalities are None if the node does not require any, and empty if it matches no row.
        The rest is ALWAYS if nothing remains to be tested, and None for the whole node.
        """
        match node:
            case Condition() if node.operator.equality:
                return (node,), ALWAYS
            case InKeySet():
                return (node,), ALWAYS
            case And(parts):
                options = [
                    (equalities, part)
                    for part in parts
                    if (equalities := self._find_equalities(part)[0]) is not None
                ]
                if not options:
                    return None, None
                equalities, best = min(options, key=lambda option: self._selectivity(option[0]))
                if not isinstance(best, Condition | InKeySet):
                    return equalities, None
                return equalities, all_of(part for part in parts if part is not best)
            case Or(parts):
                joined: Equalities = ()
                for part in parts:
                    of_part, _ = self._find_equalities(part)
                    if of_part is None:
                        return None, None
                    joined += of_part
                return joined, None
        return None, None

    def _bucket_size(self, key: IndexKey) -> int:
        ref, value = key
        return length(self._buckets.get(ref, {}).get(value))

    def _count_beside(self, equalities: Equalities) -> float:
        """Return an estimate of the number of filters that are found together with this one."""
        beside: float = sum(map(self._bucket_size, _index_keys(equalities)))
        for condition in _key_set_conditions(equalities):
            if (key_sets := self._key_sets.get(condition.ref)) is not None:
                beside += key_sets.bucket_size(condition.key_set)
        return beside

    def _selectivity(self, equalities: Equalities) -> float:
        """Return an estimate of the share of rows that fulfil one of the equalities.

        It is assumed that a value is as frequent in rows as it is in filters, and that the filter's
        own values are at most a quarter of those that a field has. Otherwise a long list would
        never be preferred to a value that all filters require, and the index would not learn its
        values.
        """
        shares = 0.0
        for ref, keys in groupby(_index_keys(equalities), key=itemgetter(0)):
            sizes = [1 + self._bucket_size(key) for key in keys]
            shares += sum(sizes) / (self._key_counts[ref] + max(MAX_BUCKET_SIZE, 4 * len(sizes)))
        for condition in _key_set_conditions(equalities):
            if own := len(condition.key_set):
                known = len(self._key_sets.get(condition.ref, ()))
                known += len(self._buckets.get(condition.ref, ()))
                shares += own / (own + max(3 * own, known))
        return shares


def _index_keys(equalities: Equalities) -> list[IndexKey]:
    """Return the index keys of an entry, each once."""
    return list(
        dict.fromkeys(
            (condition.ref, key_of(condition.kind, value))
            for condition in equalities
            if isinstance(condition, Condition)
            for value in condition.operand
        )
    )


def _key_set_conditions(equalities: Equalities) -> list[InKeySet]:
    """Return the conditions with a key set, each once."""
    conditions = (condition for condition in equalities if isinstance(condition, InKeySet))
    return list(dict.fromkeys(conditions))


def _is_spread(equalities: Equalities) -> bool:
    """Return whether a row may have keys of several fields, or be in several key sets."""
    refs = {condition.ref for condition in equalities if isinstance(condition, Condition)}
    return len(refs) + len(_key_set_conditions(equalities)) > 1
