"""The class `Row`, which filters are evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from .schema import FieldSpec, Kind, Ref, Schema, coerce, fold


class Row:
    """The image of a row, with its values converted to what filters compare.

    Each value is converted once, for all filters that are evaluated on the row.
    """

    __slots__ = ("_folded", "_image", "_schema", "_values")

    def __init__(self, image: Mapping[str, Any], schema: Schema) -> None:
        self._image = image
        self._schema = schema
        # results of `get`
        self._values: dict[Ref, Any] = {}
        # results of `folded`
        self._folded: dict[Ref, str | None] = {}

    def get(self, ref: Ref) -> Any:
        """Return the value in the form in which it is compared.

        Returns None for null, for a missing value, and for one that is not valid for the field.
        For a scalar in JSON it is ``(type, value)``, such as ``("number", 5)``, and for a JSON
        array or object None, see `raw`.
        """
        try:
            return self._values[ref]
        except KeyError:
            value = self._values[ref] = self._read(ref)
            return value

    def raw(self, ref: Ref) -> Any:
        """Return the value as it is in the image, or None if it is null or missing."""
        value = self._image.get(ref[0])
        for key in ref[1:]:
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    def folded(self, ref: Ref) -> str | None:
        """Return a text without its case (see `schema.fold`), or None if it is not a text."""
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


# returns whether a row matches; never raises an exception
Predicate = Callable[[Row], bool]
