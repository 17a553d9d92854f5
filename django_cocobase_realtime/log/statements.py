"""Statements for PostgreSQL whose parameters are texts: ``$1``, ``$2`` and so on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

# executes a statement with parameters, and returns its rows
Fetch = Callable[[str, Sequence[str]], Awaitable[list[tuple[Any, ...]]]]


def array_text(values: Iterable[str | int | None]) -> str:
    """Return the text of an array with these elements."""
    return "{" + ",".join(map(_element_text, values)) + "}"


def _element_text(value: str | int | None) -> str:
    if value is None:
        return "NULL"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
