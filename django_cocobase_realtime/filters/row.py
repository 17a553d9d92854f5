"""The row that filters are asked about: an image seen through its schema."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from .schema import FieldSpec, Kind, Ref, Schema, coerce, fold


class Row:
    """Each value is read and coerced once, for all who look at it."""

    __slots__ = ("_folded", "_image", "_schema", "_values")

    def __init__(self, image: Mapping[str, Any], schema: Schema) -> None:
        self._image = image
        self._schema = schema
        self._values: dict[Ref, Any] = {}
        self._folded: dict[Ref, str | None] = {}

    def get(self, ref: Ref) -> Any:
        """The value as it compares; None for null, missing, or beyond comparing.

        JSON scalars are ``(type, value)``, JSON arrays and objects None: see ``raw``.
        """
        try:
            return self._values[ref]
        except KeyError:
            value = self._values[ref] = self._read(ref)
            return value

    def raw(self, ref: Ref) -> Any:
        """The value as the image has it; None for null or missing."""
        value = self._image.get(ref[0])
        for key in ref[1:]:
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    def folded(self, ref: Ref) -> str | None:
        """The text there without its case; None where there is no text."""
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
