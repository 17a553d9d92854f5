"""An index of key sets on one field, which finds the entries whose set contains a key.

A key leads to the sets that contain it, and a set to its entries: when a set gains a key, this is
one step, however many entries have the set.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from ...utils.small_set import SmallSet, add_to, added, length, remove_from, removed
from ..key_set import KeySet

T = TypeVar("T", bound=Hashable)


class _Member(Generic[T]):
    """A set in the index, with its entries."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: SmallSet[T] = None


class KeySetIndex(Generic[T]):
    """Entries with a key set each, on one field. It follows the changes of the sets' keys."""

    def __init__(self) -> None:
        self._members: dict[KeySet, _Member[T]] = {}
        # the sets that contain a key
        self._by_key: dict[Hashable, SmallSet[_Member[T]]] = {}
        # number of keys of all sets together
        self._total = 0

    def __bool__(self) -> bool:
        return bool(self._members)

    def __len__(self) -> int:
        """Return the number of different keys."""
        return len(self._by_key)

    def add(self, entry: T, key_set: KeySet) -> None:
        """Add an entry with its set."""
        member = self._members.get(key_set)
        if member is None:
            member = self._members[key_set] = _Member()
            for key in key_set.keys:
                self.key_added(key_set, key)
            key_set.listen(self)
        member.entries = added(member.entries, entry)

    def discard(self, entry: T, key_set: KeySet) -> None:
        """Remove an entry that was added with this set."""
        member = self._members[key_set]
        member.entries = removed(member.entries, entry)
        if member.entries is None:
            key_set.unlisten(self)
            for key in key_set.keys:
                self.key_removed(key_set, key)
            del self._members[key_set]

    def containing(self, key: Hashable) -> Sequence[SmallSet[T]]:
        """Return the entries of each set that contains a key."""
        members = self._by_key.get(key)
        if isinstance(members, dict):
            return [member.entries for member in members]
        return () if members is None else (members.entries,)

    def bucket_size(self, key_set: KeySet) -> float:
        """Return an estimate of the number of entries that are found with a key of a set."""
        shared = self._total / len(self._by_key) if self._by_key else 0
        member = self._members.get(key_set)
        return shared if member is None else max(shared, length(member.entries))

    def key_added(self, key_set: KeySet, key: Hashable) -> None:
        """Note that a key was added to a set."""
        add_to(self._by_key, key, self._members[key_set])
        self._total += 1

    def key_removed(self, key_set: KeySet, key: Hashable) -> None:
        """Note that a key was removed from a set."""
        remove_from(self._by_key, key, self._members[key_set])
        self._total -= 1
