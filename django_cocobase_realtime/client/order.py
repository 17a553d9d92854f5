"""The order of documents in a list: comparison of values as the server sorts them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from .messages import Document

# compares two documents, like the argument of `functools.cmp_to_key`
Compare = Callable[[Document, Document], float]

# names under which the primary key can be an order; it is not part of the data
KEY_NAMES = frozenset({"id", "pk"})

_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


class FieldOrder:
    """The order by one field, such as ``"title"`` or ``"-title"`` (descending)."""

    def __init__(self, order: str | None) -> None:
        # name of the field; None if documents are sorted by id alone
        self.field = None if order is None else order.removeprefix("-")
        self._sign = -1 if order is not None and order.startswith("-") else 1
        # kinds of fields, as the server has sent them
        self.kinds: Mapping[str, str] = {}

    @property
    def is_by_data(self) -> bool:
        """Whether documents are sorted by a field of their data."""
        return self.field is not None and self.field not in KEY_NAMES

    def __call__(self, a: Document, b: Document) -> int:
        """Return a negative number, zero or a positive number, without comparing the ids."""
        if self.field is None:
            return 0
        kind = self.kinds.get(self.field)
        return self._sign * compare_values(self._value(a), self._value(b), kind)

    def compare_ids(self, a: Document, b: Document) -> int:
        """Compare the ids of two documents; return -1, 0 or 1."""
        return compare_values(a.id, b.id, self.kinds.get("id"))

    def _value(self, document: Document) -> Any:
        return document.data.get(self.field or "", document.id)


def compare_values(a: Any, b: Any, kind: str | None = None) -> int:
    """Compare two JSON values of a field; return -1, 0 or 1.

    None is smaller than all other values. ``kind`` is that of the field, as the server has sent it.
    Without one, two strings that both contain a number are compared as numbers, since decimals and
    large integers are sent as strings.
    """
    if a == b:
        return 0
    if a is None or b is None:
        return -1 if a is None else 1
    if kind in _NUMERIC_KINDS and _is_number(a) and _is_number(b):
        # a number beyond 2^53 is sent as a string, and others of the same field as numbers
        a, b = Decimal(a), Decimal(b)
    elif isinstance(a, str) and isinstance(b, str):
        if kind == "datetime":
            a, b = _parse_times(a, b)
    elif not (isinstance(a, int | float) and isinstance(b, int | float)):
        a, b = str(a), str(b)
    return int(a > b) - int(a < b)


# kinds whose values are compared as numbers; None if the server has sent no kind
_NUMERIC_KINDS = (None, "number", "decimal")


def _is_number(value: Any) -> bool:
    is_text = isinstance(value, str) and _NUMBER.fullmatch(value) is not None
    return is_text or isinstance(value, int | float)


def _parse_times(a: str, b: str) -> tuple[Any, Any]:
    """Return two times as ``datetime``, or as they are if one cannot be read."""
    try:
        times = datetime.fromisoformat(a), datetime.fromisoformat(b)
    except ValueError:
        return a, b
    is_aware = [time.tzinfo is not None for time in times]
    return times if is_aware[0] == is_aware[1] else (a, b)
