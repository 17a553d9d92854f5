"""Conversion of orders to orderings of Django's ORM, and to the conditions of pages.

Rows are sorted in the same way on SQLite and PostgreSQL: nulls lowest, texts by code points, equal
rows by key. ``NULLS FIRST`` and ``COLLATE`` are left out if a column needs neither, because an
index can only serve an ordering that names what it names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connections, models
from django.db.models import F, Q, Value
from django.db.models.expressions import OrderBy
from django.db.models.functions import Collate
from django.db.models.lookups import Exact, GreaterThan, IsNull, LessThan

from .order import InvalidOrder, Order
from .orm import PLAIN_FIELDS, field_spec, to_stored, value_field
from .schema import FieldSpec, Kind, coerce
from .sql import code_point_collation

# locales with which PostgreSQL compares texts by code points, by the provider of the collation: the
# operating system, or PostgreSQL itself
_CODE_POINT_LOCALES = {
    "c": {"C", "POSIX", "C.UTF-8", "C.utf8"},
    "b": {"C", "C.UTF-8", "PG_UNICODE_FAST"},
}
# names of PostgreSQL's collations with these locales
_CODE_POINT_NAMES = {"C", "POSIX", "ucs_basic", "C.utf8", "pg_c_utf8", "pg_unicode_fast"}


class SortColumn(NamedTuple):
    """A column by which rows are sorted."""

    field: models.Field[Any, Any]
    descending: bool
    # collation that must be named, None if the column's own compares by code points
    collation: str | None
    # whether the database would not have nulls lowest by itself
    needs_nulls: bool

    @property
    def expression(self) -> Any:
        """The expression by which rows are sorted."""
        column = F(str(self.field.attname))
        return column if self.collation is None else Collate(column, self.collation)

    @property
    def ordering(self) -> OrderBy:
        """The column as a part of an ordering."""
        if self.descending:
            return OrderBy(
                self.expression, descending=True, nulls_last=True if self.needs_nulls else None
            )
        return OrderBy(self.expression, nulls_first=True if self.needs_nulls else None)


def sort_names(model: type[models.Model], order: Order) -> tuple[str, ...]:
    """Return the names of the fields of an order, and of those of the key that it does not name."""
    keys = (field.name for field in model._meta.pk_fields)
    return (*order.names, *(name for name in keys if name not in order.names))


def sort_columns(
    model: type[models.Model], order: Order, using: str, *, declared: bool = False
) -> list[SortColumn]:
    """Return the columns by which rows are sorted, up to those that no two rows have in common.

    If ``declared``, no query is made: they are as the fields are declared, in a database that
    compares texts by code points.
    """
    meta, columns = model._meta, list[SortColumn]()
    descending = {field.name for field in order.fields if field.descending}
    missing = {field.name for field in meta.pk_fields}
    for name in sort_names(model, order):
        field: Any = meta.get_field(name)
        is_text = field_spec(field).compares_as is Kind.TEXT
        needs_nulls, by_code_points = _column_properties(field, using, declared=declared)
        collation = code_point_collation(using) if is_text and not by_code_points else None
        columns.append(SortColumn(field, name in descending, collation, needs_nulls))
        missing.discard(name)
        if not missing or (field.unique and not _may_be_null(field)):
            break
    return columns


def ordering(model: type[models.Model], order: Order, using: str) -> list[OrderBy]:
    """Return an ordering of the rows of ``model`` in the database ``using``."""
    return [column.ordering for column in sort_columns(model, order, using)]


def steps_after(
    model: type[models.Model], order: Order, using: str, values: Sequence[Any]
) -> list[Q]:
    """Return conditions for the rows that are sorted after given values.

    ``values`` are those of the fields `sort_names`, as in images. The rows that meet a condition
    are sorted before those that meet the next one. An index that serves the ordering also serves
    each condition: it asks for one value of some columns, and a range of the next one. Raises
    `InvalidOrder` if the values are not valid for the fields.
    """
    columns = sort_columns(model, order, using)
    names = sort_names(model, order)
    if len(values) != len(names):
        raise InvalidOrder("The order has other fields.")
    pairs = [
        (column, _to_value(column.field, value, using))
        for column, value in zip(columns, values, strict=False)
    ]
    steps = list[Q]()
    for index in reversed(range(len(pairs))):
        equal = [_equals(column, value) for column, value in pairs[:index]]
        steps += [Q(*equal, after) for after in _after(*pairs[index])]
    return steps


def _equals(column: SortColumn, value: Value | None) -> Any:
    if value is None:
        return IsNull(column.expression, True)
    return Exact(column.expression, value)


def _after(column: SortColumn, value: Value | None) -> list[Any]:
    """Return conditions for what is sorted after a value in a column, in order."""
    if value is None:  # the lowest
        return [] if column.descending else [IsNull(column.expression, False)]
    if not column.descending:
        return [GreaterThan(column.expression, value)]
    below: list[Any] = [LessThan(column.expression, value)]
    if column.needs_nulls or _may_be_null(column.field):
        below.append(IsNull(column.expression, True))
    return below


def _to_value(field: models.Field[Any, Any], raw: Any, using: str) -> Value | None:
    """Return a value of an image as a parameter of a query; None for null."""
    if raw is None:
        return None
    spec = field_spec(field)
    kind = spec.compares_as
    try:
        value = float("nan") if is_nan(spec, raw) else coerce(spec, raw)
        if kind is Kind.DATETIME:
            value = to_stored(value, using)  # type: ignore[arg-type]
    except (ValueError, TypeError, ArithmeticError):
        value = None
    if value is None or kind not in PLAIN_FIELDS:
        raise InvalidOrder(f"{raw!r} is not a value to sort by.")
    # not the field itself, since one of the project may refuse values that the database has
    plain = PLAIN_FIELDS[kind]
    if kind is Kind.DECIMAL:
        target: Any = _target(field)
        return Value(
            value,
            output_field=plain(max_digits=target.max_digits, decimal_places=target.decimal_places),
        )
    return Value(value, output_field=plain())


def is_nan(spec: FieldSpec, raw: Any) -> bool:
    """Return whether a value of an image is "not a number", which sorts above all numbers."""
    is_number = spec.compares_as in (Kind.FLOAT, Kind.DECIMAL)
    return is_number and isinstance(raw, str) and raw.lower() == "nan"


def _target(field: models.Field[Any, Any]) -> Any:
    """Return the field that describes the values; for a foreign key, that of its target."""
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    return value_field(field)


def _may_be_null(field: Any) -> bool:
    """Return whether a column may have nulls, by the declaration of its field."""
    return field.null or getattr(field, "generated", False)


def _column_properties(field: Any, using: str, *, declared: bool) -> tuple[bool, bool]:
    """Return whether nulls must be put lowest, and whether texts are compared by code points."""
    connection, collation = connections[using], getattr(_target(field), "db_collation", None)
    if connection.vendor == "sqlite":
        # nulls are lowest in any case
        return False, field.model._meta.managed and not collation
    if connection.vendor != "postgresql":
        return _may_be_null(field), True
    if declared:
        return _may_be_null(field), not collation or collation in _CODE_POINT_NAMES
    try:
        database, table = str(connection.settings_dict["NAME"]), str(field.model._meta.db_table)
        return _read_properties(using, database, table)[str(field.column)]
    except LookupError:  # not migrated
        return True, False


@lru_cache(maxsize=1024)
def _read_properties(using: str, database: str, table: str) -> dict[str, tuple[bool, bool]]:
    """Return the `_column_properties` of a table of PostgreSQL, by column.

    Raises ``LookupError`` if it does not exist.
    """
    connection = connections[using]
    with connection.cursor() as cursor:
        # as JSON, since versions of PostgreSQL have different columns
        cursor.execute(
            "SELECT a.attname, a.attnotnull, CAST(to_jsonb(c) AS text), CAST(to_jsonb(d) AS text)"
            " FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation"
            " JOIN pg_database d ON d.datname = current_database()"
            " WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0",
            [connection.ops.quote_name(table)],
        )
        rows = cursor.fetchall()
    if not rows:
        raise LookupError(table)
    return {
        name: (not is_not_null, collation is not None and _is_by_code_points(collation, default))
        for name, is_not_null, collation, default in rows
    }


def _is_by_code_points(collation: str, default: str) -> bool:
    """Return whether a collation compares by code points, given the rows of the catalog."""
    row, prefix = json.loads(collation), "coll"
    if row["collprovider"] == "d":
        row, prefix = json.loads(default), "dat"
    provider = row.get(f"{prefix}locprovider") or row.get(f"{prefix}provider") or "c"
    name = row.get(f"{prefix}collate") if provider == "c" else row.get(f"{prefix}locale")
    return name in _CODE_POINT_LOCALES.get(provider, ())
