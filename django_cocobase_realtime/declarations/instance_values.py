"""Conversion of values in decoded images to those of instances."""

from __future__ import annotations

from typing import Any

from django.db import models

# the text of a range that contains nothing
_EMPTY_RANGE = "empty"


def field_value(field: models.Field[Any, Any], value: Any) -> Any:
    """Return the value that an instance has for one in an image, which is not None.

    Raises whatever the field raises for a value that it refuses.
    """
    base_field: Any = getattr(field, "base_field", None)
    if base_field is not None:  # a field of PostgreSQL
        if hasattr(field, "range_type"):
            return _range(field, base_field, value)
        if isinstance(value, list):
            return [None if item is None else field_value(base_field, item) for item in value]
    return field.to_python(value)


def _range(field: Any, base_field: Any, value: Any) -> Any:
    """Return a range for its text, such as ``[1, 5)``."""
    if not isinstance(value, str):
        raise TypeError(value)
    if value == _EMPTY_RANGE:
        return field.range_type(empty=True)
    lower, upper = value[1:-1].split(", ")
    bounds = (None if text == "None" else base_field.to_python(text) for text in (lower, upper))
    return field.range_type(*bounds, value[0] + value[-1])
