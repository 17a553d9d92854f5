"""Finds texts within a text: which of many ``x contains "needle"`` may hold, without trying all.

Each needle stands at one of its grams, the three characters in a row that have the fewest
neighbours; where those do not occur the needle cannot. What is found must still be asked.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from ...utils.small_set import SmallSet, add_to, items, length, remove_from

T = TypeVar("T", bound=Hashable)

LENGTH = 3  # of a gram: two characters are shared by too many needles, four tell little more
LOOKED = 64  # characters of a needle that are looked at for a place
MANY = 200  # grams beyond which it is quicker to take the text apart than to search it for each


class Texts(Generic[T]):
    """Items by a text that must occur.

    Costs a look for each character of the text, or a search for each gram where these are few.
    """

    def __init__(self) -> None:
        self._grams: dict[
            int, dict[str, SmallSet[T]]
        ] = {}  # by length: short needles have short ones

    def __bool__(self) -> bool:
        return bool(self._grams)

    def add(self, item: T, needle: str) -> str:
        """Put an item in. Returns where it stands, for ``discard``."""
        size = min(LENGTH, len(needle))
        at = self._grams.setdefault(size, {})
        gram = min(_grams(needle[:LOOKED], size), key=lambda gram: length(at.get(gram)))
        add_to(at, gram, item)
        return gram

    def discard(self, item: T, gram: str) -> None:
        """Take out an item that stands there."""
        at = self._grams[len(gram)]
        remove_from(at, gram, item)
        if not at:
            del self._grams[len(gram)]

    def within(self, text: str) -> list[T]:
        """Items whose text may occur in this one, each once; never misses one that does."""
        found: list[T] = []
        for size, at in self._grams.items():
            if len(at) > MANY:
                there = at.keys() & _grams(text, size)
            else:
                there = {gram for gram in at if gram in text}
            for gram in there:
                found += items(at[gram])
        return found


def _grams(text: str, length: int) -> list[str]:
    return [text[n : n + length] for n in range(len(text) - length + 1)]
