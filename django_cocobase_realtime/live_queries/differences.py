"""The difference between two lists: which items to remove, and which to insert again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol, TypeVar

# items that are compared at a time
MAX_STEP = 1024


class Item(Protocol):
    """An item of a list, which contains each id once."""

    @property
    def id(self) -> Hashable:
        """The id of the item, which is unique in a list."""


T = TypeVar("T", bound=Item)


class Differences(NamedTuple):
    """The difference between two lists, as indexes of their items.

    The new list results if the items of ``remove`` are removed from the old one, and those of
    ``insert`` are inserted one after the other, each at its index in the new list.
    """

    # indexes in the old list, ascending
    remove: list[int]
    # indexes in the new list, ascending
    insert: list[int]

    def __bool__(self) -> bool:
        return bool(self.remove or self.insert)


def differences(
    old: Sequence[T], new: Sequence[T], are_equal: Callable[[T, T], bool]
) -> Differences:
    """Return the difference between two lists, with as few items as possible.

    ``are_equal`` is called with two items of the same id. It is not called for identical ones.
    """
    start = _common_start(old, new, are_equal)
    end = _common_start(old[start:][::-1], new[start:][::-1], are_equal)
    old_stop, new_stop = len(old) - end, len(new) - end
    # mostly one item has moved, or one has entered at one end and one left at the other
    if old_stop > start and new_stop > start:
        if old[start + 1 : old_stop] == new[start : new_stop - 1]:
            return Differences([start], [new_stop - 1])
        if old[start : old_stop - 1] == new[start + 1 : new_stop]:
            return Differences([old_stop - 1], [start])
    indexes = {old[index].id: index for index in range(start, old_stop)}
    common: list[tuple[int, int]] = []
    for index in range(start, new_stop):
        old_index = indexes.get(new[index].id)
        if old_index is not None and _same(old[old_index], new[index], are_equal):
            common.append((old_index, index))
    kept = _longest_increasing(common)
    kept_old, kept_new = {pair[0] for pair in kept}, {pair[1] for pair in kept}
    return Differences(
        [index for index in range(start, old_stop) if index not in kept_old],
        [index for index in range(start, new_stop) if index not in kept_new],
    )


def _same(one: T, other: T, are_equal: Callable[[T, T], bool]) -> bool:
    return one is other or (one.id == other.id and are_equal(one, other))


def _common_start(old: Sequence[T], new: Sequence[T], are_equal: Callable[[T, T], bool]) -> int:
    """Return how many first items are the same in both lists."""
    start, step, shortest = 0, MAX_STEP, min(len(old), len(new))
    while start < shortest:
        # many at a time, which takes a tenth of the time
        if step > 1 and old[start : start + step] == new[start : start + step]:
            start += step
        elif step > 1:
            step //= 2
        elif _same(old[start], new[start], are_equal):
            start += 1
        else:
            break
    return min(start, shortest)


def _longest_increasing(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest subsequence of pairs in which the first numbers increase.

    Source: patience sorting, as in the article "Longest increasing subsequence" of Wikipedia.
    """
    # for each length, the smallest number with which a subsequence of it ends, and its pair
    ends: list[int] = []
    last: list[int] = []
    previous: list[int] = []
    for index, (number, _) in enumerate(pairs):
        length = bisect_left(ends, number)
        previous.append(last[length - 1] if length else -1)
        if length == len(ends):
            ends.append(number)
            last.append(index)
        else:
            ends[length], last[length] = number, index
    result: list[tuple[int, int]] = []
    index = last[-1] if last else -1
    while index >= 0:
        result.append(pairs[index])
        index = previous[index]
    return result[::-1]
