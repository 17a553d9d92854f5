"""Validation of the scopes of API keys against the declared collections and rooms."""

from __future__ import annotations

from collections.abc import Collection as Container
from collections.abc import Sequence
from fnmatch import fnmatchcase

from .registry import UnknownCollection, registry, room_registry

# an element of a pattern: one character, "?", "*" or a set such as "[abc]"
Element = str


def unknown_collections(names: Container[str]) -> list[str]:
    """Return the names that no collection has or had."""
    unknown = []
    for name in names:
        try:
            registry.get(name)
        except UnknownCollection:
            unknown.append(name)
    return unknown


def unmatched_rooms(patterns: Container[str]) -> list[str]:
    """Return the patterns that match no room of a declaration.

    There are none if the project declares no rooms, since all names are allowed then. Sets of
    characters such as ``[abc]`` are taken to have a character in common.
    """
    declared = [room.pattern for room in room_registry]
    if not declared:
        return []
    return [
        pattern for pattern in patterns if not any(_overlap(pattern, other) for other in declared)
    ]


def _overlap(one: str, other: str) -> bool:
    """Return whether a name may exist that both patterns match."""
    first, second = _elements(one), _elements(other)
    # whether the rest of `second` from each element on may match an empty text; then, from the last
    # element of `first` to its first one, whether it overlaps the rest of `first`
    row = [all(element == "*" for element in second[j:]) for j in range(len(second) + 1)]
    for i in range(len(first) - 1, -1, -1):
        below, row = row, [False] * (len(second) + 1)
        for j in range(len(second), -1, -1):
            after = j + 1 <= len(second) and row[j + 1]
            if first[i] == "*":
                row[j] = below[j] or after
            elif j < len(second) and second[j] == "*":
                row[j] = after or below[j]
            elif j < len(second):
                row[j] = _may_match(first[i], second[j]) and below[j + 1]
    return row[0]


def _elements(pattern: str) -> Sequence[Element]:
    """Split a pattern, as `fnmatch` reads it."""
    elements, position = [], 0
    while position < len(pattern):
        end = position + 1
        if pattern[position] == "[":
            # a "]" directly after the beginning belongs to the set
            begin = end + pattern.startswith("!", end)
            closing = pattern.find("]", begin + 1)
            end = end if closing < 0 else closing + 1
        elements.append(pattern[position:end])
        position = end
    return elements


def _may_match(one: Element, other: Element) -> bool:
    """Return whether two elements, none of them ``*``, may match the same character."""
    literals = [element for element in (one, other) if len(element) == 1 and element != "?"]
    if not literals:
        return True
    return all(fnmatchcase(literals[0], element) for element in (one, other))
