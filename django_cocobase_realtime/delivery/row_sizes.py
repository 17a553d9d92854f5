"""Sizes of rows, which are selected with their keys, so that they are known before a row is read.

A page of documents has a number of bytes, but a query a number of rows. Without the sizes, the
first rows are read a few at a time, since any of them may be large.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from typing import Any

from django.db import connections, models
from django.db.models import F, Func

from ..declarations.collection import Collection

MAX_ROWS = 1000  # rows that are read in one call if their sizes allow it
MAX_ROW_BYTES = 1024 * 1024  # of all these rows together
FEW_ROWS = 30  # rows that are read without knowing how large they are
MAX_SHORT_BYTES = 32  # of a value of a short field
SHORT_BYTES = 16  # of most of them

# fields whose values take at most `MAX_SHORT_BYTES` in a database
SHORT_FIELDS = (
    models.BooleanField,
    models.IntegerField,
    models.FloatField,
    models.DateField,
    models.TimeField,
    models.DurationField,
    models.UUIDField,
)

# types of PostgreSQL for which the function OCTET_LENGTH exists
_TEXT = re.compile(r"(varchar|char)(\(\d+\))?|text|bytea")
# expressions for the bytes of a column, none of which reads a value that is stored beside the row
_OCTETS = "COALESCE(OCTET_LENGTH({0}), 0)"
# of columns that are not stored as text, roughly: compressed ones take a fourth of their bytes
_STORED = (
    "COALESCE(PG_COLUMN_SIZE({0}) * CASE WHEN PG_COLUMN_COMPRESSION({0}) IS NULL"
    " THEN 1 ELSE 4 END, 0)"
)
# for SQLite before 3.43, which reads the value
_BLOB = "COALESCE(LENGTH(CAST({0} AS BLOB)), 0)"


class _RowBytes(Func):
    """The bytes of columns, by one template for each, and a constant for the other columns."""

    output_field = models.BigIntegerField()

    def __init__(self, *names: str, templates: tuple[str, ...], constant: int) -> None:
        super().__init__(*map(F, names))
        self._templates, self._constant = templates, constant

    def as_sql(
        self, compiler: Any, connection: Any, *args: Any, **options: Any
    ) -> tuple[str, tuple[str | int, ...]]:
        parts = [str(self._constant)]
        for template, column in zip(self._templates, self.source_expressions, strict=True):
            sql, _ = compiler.compile(column)  # the name of a column has no parameters
            parts.append(template.format(sql))
        return f"({' + '.join(parts)})", ()


def small_rows(model: type[models.Model]) -> int:
    """Return how many rows have `MAX_ROW_BYTES` at most, by the declarations of their fields.

    Returns 0 if the values of a field may have any length.
    """
    size = 0
    for field in model._meta.concrete_fields:
        target = _target(field)
        if not type(target).__module__.startswith("django."):
            return 0
        if isinstance(target, SHORT_FIELDS):
            size += MAX_SHORT_BYTES
        elif isinstance(target, models.CharField | models.FileField) and target.max_length:
            size += 4 * target.max_length
        else:
            return 0
    return min(MAX_ROWS, MAX_ROW_BYTES // size)


def row_bytes(collection: Collection, limit: int, *, is_sorted: bool) -> Func | None:
    """Return an expression for the bytes of a row of which documents are made.

    Returns None if the rows need not be measured, because they are few, or small by declaration;
    or if the database could only measure them by reading more than the first ``limit`` rows.
    """
    model, using = collection.concrete_model, collection.database
    if limit <= FEW_ROWS or small_rows(model) >= min(limit, MAX_ROWS):
        return None
    connection = connections[using]
    if connection.vendor == "postgresql":
        is_postgres = True
    elif connection.vendor == "sqlite":
        is_postgres, octets = False, _OCTETS
        if sqlite3.sqlite_version_info < (3, 43):
            if is_sorted or limit > MAX_ROWS:
                return None
            octets = _BLOB
    else:
        return None
    names, templates, constant = [], [], 0
    for field in _fields_read(collection):
        if isinstance(_target(field), SHORT_FIELDS):
            constant += SHORT_BYTES
            continue
        names.append(str(field.attname))
        templates.append(_postgres_template(field, connection) if is_postgres else octets)
    return _RowBytes(*names, templates=tuple(templates), constant=constant)


def _fields_read(collection: Collection) -> Iterable[models.Field[Any, Any]]:
    """Return the fields that are read for a document."""
    if collection.loaded_queryset is not None:
        return collection.concrete_model._meta.concrete_fields
    return collection.codec.fields.values()


def _target(field: models.Field[Any, Any]) -> models.Field[Any, Any]:
    """Return the field that a foreign key refers to, or the field itself."""
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    return field


def _postgres_template(field: models.Field[Any, Any], connection: Any) -> str:
    return _OCTETS if _TEXT.fullmatch(field.db_type(connection) or "") else _STORED
