"""An index of substrings, which finds those that may occur in a text without trying all of them.

Each substring is stored under one of its trigrams (sequences of three characters), namely that
under which the fewest others are stored. A text that does not contain the trigram cannot contain
the substring. A text that does must still be tested.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from ...utils.small_set import SmallSet, add_to, items, length, remove_from

T = TypeVar("T", bound=Hashable)

# characters; two would be shared by too many substrings, and four would distinguish few more
TRIGRAM_LENGTH = 3
# number of characters at the start of a substring whose trigrams are considered
MAX_CONSIDERED = 64
# up to this number of trigrams, each is searched in the text; with more, the trigrams of the text
# are looked up
MAX_SEARCHED = 200


class SubstringIndex(Generic[T]):
    """Items by a substring.

    A lookup costs a hash lookup per character of the text; if there are few trigrams, it costs a
    search in the text per trigram.
    """

    def __init__(self) -> None:
        # items by the length of the trigram, which is less than three for shorter substrings, and
        # by the trigram
        self._trigrams: dict[int, dict[str, SmallSet[T]]] = {}

    def __bool__(self) -> bool:
        return bool(self._trigrams)

    def add(self, item: T, substring: str) -> str:
        """Add an item; return the trigram under which it is stored, for `discard`."""
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
        """Return all items whose substring occurs in the text, and some others, each once."""
        candidates: list[T] = []
        for size, by_trigram in self._trigrams.items():
            if len(by_trigram) > MAX_SEARCHED:
                occurring = by_trigram.keys() & _trigrams(text, size)
            else:
                occurring = {trigram for trigram in by_trigram if trigram in text}
            for trigram in occurring:
                candidates += items(by_trigram[trigram])
        return candidates


def _trigrams(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(len(text) - size + 1)]
