"""Parts of one table that a query reads: columns, and conditions that Python can test on rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

# a row: values by the attribute names of the model's fields
Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Equality:
    """A condition that a column has one of several values."""

    # attribute name of the column's field
    attname: str
    # the field that converts the column's values; for a foreign key, that of its target
    field: Any
    # the values, as the field's `to_python` returns them
    values: frozenset[Any]

    def holds(self, row: Row) -> bool:
        """Return whether a row may meet the condition. An unknown value may."""
        try:
            return python_value(self.field, row[self.attname]) in self.values
        except Exception:
            return True


@dataclass(frozen=True, slots=True)
class TableReads:
    """Columns of one table that a query reads, and conditions on the rows that it reads."""

    # attribute names of the columns; None for all
    columns: frozenset[str] | None
    # lists of conditions, of which a row must meet all of one list; None for every row
    conditions: tuple[tuple[Equality, ...], ...] | None


def is_touched(reads: TableReads, before: Row | None, after: Row | None) -> bool:
    """Return whether the change of a row may change what the query returns.

    ``before`` and ``after`` are None if the row did not exist.
    """
    if not columns_changed(reads.columns, before, after):
        return False
    if reads.conditions is None:
        return True
    return any(
        all(condition.holds(row) for condition in conditions)
        for row in (before, after)
        if row is not None
        for conditions in reads.conditions
    )


def columns_changed(columns: frozenset[str] | None, before: Row | None, after: Row | None) -> bool:
    """Return whether one of the columns may differ in two images of a row.

    A column differs if an image does not have it.
    """
    if before is None or after is None or columns is None:
        return before is not after
    missing = object()
    return any(
        before.get(name, missing) != after.get(name, missing) or name not in after
        for name in columns
    )


def python_value(field: Any, value: Any) -> Any:
    """Return a value of a column in the form in which values are compared.

    Raises what the field raises for values that it cannot convert.
    """
    return None if value is None else field.to_python(value)
