"""Key sets: the keys that a query of related rows returns now.

A filter such as ``{"project__in": Project.objects.filter(...)}`` contains a key set instead of a
list of values. Filters that contain the same query share one set. When its keys change, the
filters stay the same, and an index of filters only has to move the keys that were added or
removed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from hashlib import blake2b
from itertools import count
from typing import ClassVar, Protocol

from ..utils.small_set import SmallSet, added, items, removed
from .schema import FieldSpec, Kind, coerce, key_of

DIGEST_BYTES = 16

_serials = count(1)


class KeyListener(Hashable, Protocol):
    """An object that a `KeySet` calls for each change of its keys, such as an index."""

    def key_added(self, key_set: KeySet, key: Hashable) -> None:
        """Note that a key was added to a set."""

    def key_removed(self, key_set: KeySet, key: Hashable) -> None:
        """Note that a key was removed from a set."""


class KeySet:
    """The keys that a query of related rows returns now. A set is equal only to itself.

    Keys are those of `schema.key_of`, see `keys_of`; null is never one of them. All methods that
    change keys must be called in the same thread, that of the event loop.
    """

    __slots__ = (
        "__weakref__",
        "_keys",
        "_listeners",
        "digest",
        "kind",
        "name",
        "serial",
        "version",
    )

    # key of the hashes in `digest`, the same on all servers; see `use_secret`
    _secret: ClassVar[bytes] = b""

    def __init__(self, name: str, kind: Kind, keys: Iterable[Hashable] = ()) -> None:
        # a text that describes the query, without the keys
        self.name = name
        # kind of the field whose values are compared with the keys
        self.kind = kind
        # number of the set in this process, which is never used again
        self.serial = next(_serials)
        # grows with each change of the keys
        self.version = 0
        # sum of keyed hashes of the keys: the same for equal keys, on all servers
        self.digest = 0
        # the keys of a dictionary, which takes less memory than a set. It is never replaced,
        # because predicates refer to it
        self._keys: dict[Hashable, None] = {}
        self._listeners: SmallSet[KeyListener] = None
        self.replace(keys)
        self.version = 0

    @classmethod
    def use_secret(cls, secret: bytes) -> None:
        """Set the key for digests, of 64 bytes at most, before the first set is made."""
        cls._secret = secret

    @property
    def description(self) -> str:
        """A text that describes the query, the same for equal queries only."""
        return self.name

    @property
    def keys(self) -> Mapping[Hashable, None]:
        """The keys. This is always the same object; copy it to keep the keys of a moment."""
        return self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, key: Hashable) -> bool:
        return key in self._keys

    def __repr__(self) -> str:
        return f"<KeySet {self.serial} of {len(self)} keys: {self.name}>"

    def replace(self, keys: Iterable[Hashable]) -> tuple[list[Hashable], list[Hashable]]:
        """Replace all keys. Return those that are gained and those that are lost."""
        new = dict.fromkeys(keys)
        new.pop(None, None)
        gained = [key for key in new if key not in self._keys]
        lost = [key for key in self._keys if key not in new]
        for key in lost:
            self._remove(key)
        for key in gained:
            self._add(key)
        if gained or lost:
            self.version += 1
        return gained, lost

    def add(self, key: Hashable) -> bool:
        """Add a key. Return whether it is new."""
        if key is None or key in self._keys:
            return False
        self._add(key)
        self.version += 1
        return True

    def discard(self, key: Hashable) -> bool:
        """Remove a key. Return whether it was there."""
        if key not in self._keys:
            return False
        self._remove(key)
        self.version += 1
        return True

    def held(self) -> KeySet:
        """Return another set with the keys of this moment, which a thread may read."""
        copy = KeySet(self.name, self.kind)
        copy._keys.update(self._keys)
        copy.version, copy.digest = self.version, self.digest
        return copy

    def listen(self, listener: KeyListener) -> None:
        """Call a listener for each key that is added or removed from now on."""
        self._listeners = added(self._listeners, listener)

    def unlisten(self, listener: KeyListener) -> None:
        """Stop calling a listener."""
        self._listeners = removed(self._listeners, listener)

    def _add(self, key: Hashable) -> None:
        self._keys[key] = None
        self.digest = (self.digest + self._hash(key)) % _MODULUS
        for listener in items(self._listeners):
            listener.key_added(self, key)

    def _remove(self, key: Hashable) -> None:
        del self._keys[key]
        self.digest = (self.digest - self._hash(key)) % _MODULUS
        for listener in items(self._listeners):
            listener.key_removed(self, key)

    def _hash(self, key: Hashable) -> int:
        text = key if isinstance(key, str) else repr(key)
        encoded = text.encode("utf-8", "surrogatepass")
        digest = blake2b(encoded, digest_size=DIGEST_BYTES, key=self._secret).digest()
        return int.from_bytes(digest)


def keys_of(kind: Kind, values: Iterable[object]) -> list[Hashable]:
    """Return the keys of values that a query returned, for a `KeySet` of this kind.

    Nulls are left out, and values that cannot be equal to any of that kind.
    """
    spec = FieldSpec("", kind)
    keys: list[Hashable] = []
    for value in values:
        try:
            keys.append(key_of(kind, coerce(spec, value)))
        except (ValueError, TypeError, OverflowError):
            continue
    return keys


_MODULUS = 1 << (8 * DIGEST_BYTES)
