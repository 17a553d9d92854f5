"""Sets that take little memory if they have only one item.

None is the empty set, a set with one item is that item itself, and a set with several items is a
dictionary with the items as keys, in the order in which they were added. A dictionary takes over
two hundred bytes, and each subscription is in several sets that mostly have one item. Items must
be hashable, so an item is never a dictionary.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, MutableMapping
from typing import TypeAlias, TypeVar

K = TypeVar("K")
T = TypeVar("T", bound=Hashable)
SmallSet: TypeAlias = T | dict[T, None] | None


def added(small_set: SmallSet[T], item: T) -> SmallSet[T]:
    """Return the set with an item added. The set that was passed must no longer be used."""
    if small_set is None:
        return item
    if isinstance(small_set, dict):
        small_set[item] = None
        return small_set
    return small_set if small_set == item else {small_set: None, item: None}


def removed(small_set: SmallSet[T], item: T) -> SmallSet[T]:
    """Return the set without an item. The set that was passed must no longer be used."""
    if isinstance(small_set, dict):
        small_set.pop(item, None)
        return next(iter(small_set)) if len(small_set) == 1 else small_set
    return None if small_set == item else small_set


def add_to(sets: MutableMapping[K, SmallSet[T]], key: K, item: T) -> None:
    """Add an item to the set of a key."""
    sets[key] = added(sets.get(key), item)


def remove_from(sets: MutableMapping[K, SmallSet[T]], key: K, item: T) -> None:
    """Remove an item from the set of a key, and the key if its set becomes empty."""
    remaining = removed(sets[key], item)
    if remaining is None:
        del sets[key]
    else:
        sets[key] = remaining


def items(small_set: SmallSet[T]) -> Iterable[T]:
    """Return the items of a set."""
    if isinstance(small_set, dict):
        return small_set
    return () if small_set is None else (small_set,)


def length(small_set: SmallSet[T]) -> int:
    """Return the number of items of a set."""
    if isinstance(small_set, dict):
        return len(small_set)
    return 0 if small_set is None else 1
