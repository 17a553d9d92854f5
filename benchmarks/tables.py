"""Markdown tables of results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Rows = list[dict[str, Any]]
FAULTS = "lost / duplicate / misdirected"


def format_number(value: Any, form: str = "{:.1f}") -> str:
    """Format a figure; a dash if there is none."""
    return "–" if value is None else form.format(value)


def markdown_table(head: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    rows += ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
    return "\n".join(rows) + "\n"


def format_faults(row: dict[str, Any]) -> str:
    """Return the numbers of lost, duplicate and misdirected deliveries."""
    return " / ".join(str(row.get(fault, 0)) for fault in ("lost", "duplicates", "misdirected"))


def unsupported_row(row: dict[str, Any], cells: int) -> list[str]:
    """Return the cells of a row that the server does not support."""
    return [row["name"], "not supported", *["–"] * (cells - 2)]


def group_rows(rows: Rows, *keys: str) -> dict[tuple[Any, ...], Rows]:
    """Group rows by the values of some keys, in the order of their first appearance."""
    groups: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return groups
