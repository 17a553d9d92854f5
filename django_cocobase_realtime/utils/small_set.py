"""Sets that mostly have one item: it stands for itself, and only several make a dictionary.

A dictionary of one takes over two hundred bytes; there are several such sets a subscription.
None is the empty set. Items are hashable, so that none is a dictionary itself. Order is kept.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, MutableMapping
from typing import TypeAlias, TypeVar

K = TypeVar("K")
T = TypeVar("T", bound=Hashable)
SmallSet: TypeAlias = T | dict[T, None] | None


def added(held: SmallSet[T], item: T) -> SmallSet[T]:
    """The set with this item as well; what was ``held`` is used up."""
    if held is None:
        return item
    if isinstance(held, dict):
        held[item] = None
        return held
    return held if held == item else {held: None, item: None}


def removed(held: SmallSet[T], item: T) -> SmallSet[T]:
    """The set without this item, which need not be in it; what was ``held`` is used up."""
    if isinstance(held, dict):
        held.pop(item, None)
        return next(iter(held)) if len(held) == 1 else held
    return None if held == item else held


def add_to(sets: MutableMapping[K, SmallSet[T]], key: K, item: T) -> None:
    """Put an item into the set under this key."""
    sets[key] = added(sets.get(key), item)


def remove_from(sets: MutableMapping[K, SmallSet[T]], key: K, item: T) -> None:
    """Take an item out of the set under this key; a set that is empty then goes with its key."""
    left = removed(sets[key], item)
    if left is None:
        del sets[key]
    else:
        sets[key] = left


def items(held: SmallSet[T]) -> Iterable[T]:
    """Its items."""
    if isinstance(held, dict):
        return held
    return () if held is None else (held,)


def length(held: SmallSet[T]) -> int:
    """How many there are."""
    if isinstance(held, dict):
        return len(held)
    return 0 if held is None else 1
