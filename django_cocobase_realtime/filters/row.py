"""The class `Row`, which filters are evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from math import isfinite
from typing import Any

from .schema import FieldSpec, Kind, Ref, Schema, coerce, fold, key_of, number_key


class Row:
    """The image of a row, with its values converted to what filters compare.

    Each value is converted once, for all filters that are evaluated on the row.
    """

    __slots__ = ("_folded", "_image", "_keys", "_members", "_schema", "_values")

    def __init__(self, image: Mapping[str, Any], schema: Schema) -> None:
        self._image = image
        self._schema = schema
        # results of `get`
        self._values: dict[Ref, Any] = {}
        # results of `key`
        self._keys: dict[Ref, Hashable] = {}
        # results of `folded`
        self._folded: dict[Ref, str | None] = {}
        # results of `members`
        self._members: dict[tuple[Ref, str], frozenset[Hashable] | None] = {}

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

    def key(self, ref: Ref) -> Hashable:
        """Return the key of the value in sets and dictionaries (see `key_of`), or None.

        It is None if `get` returns None.
        """
        key: Hashable = self._keys.get(ref, _UNREAD)
        if key is _UNREAD:
            value = self._values.get(ref, _UNREAD)
            if value is _UNREAD:
                value = self._values[ref] = self._read(ref)
            key = None if value is None else key_of(self._spec(ref).compares_as, value)
            self._keys[ref] = key
        return key

    def members(self, ref: Ref, json_type: str) -> frozenset[Hashable] | None:
        """Return the members of one type in a JSON array, or None if the value is no array.

        Texts and booleans are returned as they are, and numbers as keys, see `number_key`.
        """
        try:
            return self._members[ref, json_type]
        except KeyError:
            value = self.raw(ref)
            members = _members(value, json_type) if isinstance(value, list) else None
            self._members[ref, json_type] = members
            return members

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
        try:
            raw = self.raw(ref)
            return None if raw is None else coerce(self._spec(ref), raw)
        except Exception:  # for example of a value that a field of the project wrote
            return None

    def _spec(self, ref: Ref) -> FieldSpec:
        return self._schema[ref[0]] if len(ref) == 1 else _JSON


def _members(values: list[Any], json_type: str) -> frozenset[Hashable]:
    # in one expression per type, because an array may be long
    match json_type:
        case "text":
            return frozenset([value for value in values if type(value) is str])
        case "boolean":
            return frozenset([value for value in values if type(value) is bool])
    # `hex` is `number_key` for integers
    integers = frozenset(map(hex, [value for value in values if type(value) is int]))
    floats = [value for value in values if type(value) is float and isfinite(value)]
    return integers.union(map(number_key, floats)) if floats else integers


_JSON = FieldSpec("", Kind.JSON)
# for values that are not cached yet
_UNREAD: Any = object()

# returns whether a row matches
Predicate = Callable[[Row], bool]
