"""The row that filters are evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from .schema import FieldSpec, Kind, Ref, Schema, coerce, fold


class Row:
    """An image of a row, read through its schema.

    Each value is read and coerced once, then shared by all filters that are evaluated on the row.
    """

    __slots__ = ("_folded", "_image", "_schema", "_values")

    def __init__(self, image: Mapping[str, Any], schema: Schema) -> None:
        self._image = image
        self._schema = schema
        self._values: dict[Ref, Any] = {}
        self._folded: dict[Ref, str | None] = {}

    def get(self, ref: Ref) -> Any:
        """Return the value in the form in which it is compared.

        None for null, a missing value, and a value that the field's kind cannot compare. A scalar
        in JSON is ``(type, value)``, e.g. ``("number", 5)``; a JSON array or object is None, see
        `raw`.
        """
        try:
            return self._values[ref]
        except KeyError:
            value = self._values[ref] = self._read(ref)
            return value

    def raw(self, ref: Ref) -> Any:
        """Return the value as it is in the image, or None for null or a missing value."""
        value = self._image.get(ref[0])
        for key in ref[1:]:
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    def folded(self, ref: Ref) -> str | None:
        """Return the value's text without its case, or None if it is not text."""
        try:
            return self._folded[ref]
        except KeyError:
            raw = self.raw(ref)
            text = fold(raw) if isinstance(raw, str) else None
            self._folded[ref] = text
            return text

    def _read(self, ref: Ref) -> Hashable | None:
        raw = self.raw(ref)
        if raw is None:
            return None
        try:
            return coerce(self._spec(ref), raw)
        except (ValueError, TypeError, OverflowError):
            return None

    def _spec(self, ref: Ref) -> FieldSpec:
        spec = self._schema[ref[0]]
        return spec if len(ref) == 1 else FieldSpec(spec.name, Kind.JSON)


Predicate = Callable[[Row], bool]
"""A test of a row. It never raises."""
