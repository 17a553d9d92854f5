"""A parsed filter, and the row that it is asked about."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .schema import Schema, coerce


class Row:
    """An image seen through its schema: each field is coerced once, for all who look at it."""

    __slots__ = ("_image", "_schema", "_values")

    def __init__(self, image: Mapping[str, Any], schema: Schema) -> None:
        self._image = image
        self._schema = schema
        self._values: dict[str, Hashable | None] = {}

    def get(self, name: str) -> Hashable | None:
        """The field's value as it compares; None for null, missing, or beyond comparing."""
        try:
            return self._values[name]
        except KeyError:
            value = self._values[name] = self._read(name)
            return value

    def _read(self, name: str) -> Hashable | None:
        raw = self._image.get(name)
        if raw is None:
            return None
        try:
            return coerce(self._schema[name], raw)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Filter:
    """A conjunction of equalities. ``possible`` False matches nothing.

    A null or missing value equals nothing.
    """

    equalities: Mapping[str, frozenset[Hashable]] = field(default_factory=dict)
    possible: bool = True

    @classmethod
    def everything(cls) -> Filter:
        """Matches every row."""
        return cls()

    @classmethod
    def nothing(cls) -> Filter:
        """Matches no row."""
        return cls(possible=False)

    def matches(self, row: Row) -> bool:
        """Whether the row is in the set."""
        if not self.possible:
            return False
        for name, values in self.equalities.items():
            value = row.get(name)
            if value is None or value not in values:
                return False
        return True

    def canonical(self) -> str:
        """The same text for the same filter, on every server."""
        if not self.possible:
            return "nothing"
        return repr([(n, sorted(map(repr, v))) for n, v in sorted(self.equalities.items())])

    def __and__(self, other: Filter) -> Filter:
        """Matches what both match."""
        if not (self.possible and other.possible):
            return Filter.nothing()
        both = dict(self.equalities)
        for name, values in other.equalities.items():
            both[name] = both[name] & values if name in both else values
        return Filter(both, all(both.values()))
