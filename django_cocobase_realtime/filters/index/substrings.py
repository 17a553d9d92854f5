"""An index of substrings: finds those that may occur in a text, without trying all of them.

Each substring is stored under one of its trigrams, the one that the fewest others are stored
under. A text that does not contain the trigram cannot contain the substring. A text that does
must still be tested.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from ...utils.small_set import SmallSet, add_to, items, length, remove_from

T = TypeVar("T", bound=Hashable)

# characters: too many substrings share two, and four tell hardly more of them apart than three
TRIGRAM_LENGTH = 3
# characters at the start of a substring whose trigrams are considered
MAX_CONSIDERED = 64
# trigrams up to which each is searched in the text; beyond, the text's own trigrams are looked up
MAX_SEARCHED = 200


class SubstringIndex(Generic[T]):
    """Items by a substring.

    A lookup costs a hash lookup per character of the text, or a search in the text per trigram if
    there are few trigrams.
    """

    def __init__(self) -> None:
        # items by trigram, by its length: a substring of one or two characters has a shorter one
        self._trigrams: dict[int, dict[str, SmallSet[T]]] = {}

    def __bool__(self) -> bool:
        return bool(self._trigrams)

    def add(self, item: T, substring: str) -> str:
        """Add an item. Return the trigram that it is stored under, for `discard`."""
        size = min(TRIGRAM_LENGTH, len(substring))
        by_trigram = self._trigrams.setdefault(size, {})
        trigram = min(
            _trigrams(substring[:MAX_CONSIDERED], size),
            key=lambda trigram: length(by_trigram.get(trigram)),
        )
        add_to(by_trigram, trigram, item)
        return trigram

    def discard(self, item: T, trigram: str) -> None:
        """Remove an item that is stored under this trigram."""
        by_trigram = self._trigrams[len(trigram)]
        remove_from(by_trigram, trigram, item)
        if not by_trigram:
            del self._trigrams[len(trigram)]

    def occurring_in(self, text: str) -> list[T]:
        """Return the items whose substring may occur in the text, each once.

        Includes every item whose substring does occur.
        """
        found: list[T] = []
        for size, by_trigram in self._trigrams.items():
            if len(by_trigram) > MAX_SEARCHED:
                occurring = by_trigram.keys() & _trigrams(text, size)
            else:
                occurring = {trigram for trigram in by_trigram if trigram in text}
            for trigram in occurring:
                found += items(by_trigram[trigram])
        return found


def _trigrams(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(len(text) - size + 1)]
