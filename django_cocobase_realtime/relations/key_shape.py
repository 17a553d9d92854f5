"""Shapes of key queries: what queries have in common that differ in their parameters only."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connections, models
from django.db.models.expressions import Col
from django.db.models.sql.query import Query

from .conditions import Comparison, Comparisons
from .dependencies import AliasReads, read_dependencies
from .errors import UnsupportedQuery
from .refusals import unknown_tables

_PLACEHOLDER = re.compile(r"%[%s]")
# PostgreSQL's types of parameters; a boolean is an integer, and a datetime is a date
_SQL_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (int, "bigint"),
    (str, "text"),
    (UUID, "uuid"),
    (Decimal, "numeric"),
    (float, "double precision"),
    (datetime, "timestamptz"),
    (date, "date"),
)


class KeyShape:
    """Statement, tables and conditions of key queries that differ in their parameters only.

    Equal shapes are the same object in a process.
    """

    __slots__ = (
        "__weakref__",
        "_converters",
        "comparisons",
        "field",
        "reads",
        "refused",
        "sql",
        "tables",
        "using",
    )

    def __init__(
        self,
        using: str,
        sql: str,
        field: models.Field[Any, Any],
        reads: dict[str, tuple[AliasReads, ...]],
        comparisons: tuple[Comparison, ...],
    ) -> None:
        # alias of the database
        self.using = using
        # the statement, with placeholders; empty if the query returns nothing
        self.sql = sql
        # the field that the keys are values of; for a foreign key, that of its target
        self.field = field
        # what is read, by the labels of the tables' models
        self.reads = reads
        # labels of the models whose tables are read, through tables included
        self.tables = frozenset(reads)
        # comparisons with constants; their values are those of some query of this shape
        self.comparisons = comparisons
        # statements for many queries that the database has refused
        self.refused: set[str] = set()
        # functions that convert the keys
        self._converters: list[Callable[..., Any]] | None = None

    def statement(self, limit: int) -> str:
        """Return the statement that reads at most ``limit + 1`` keys of one query."""
        return _limited(self.sql, limit)

    def batch_statement(
        self, varying: Sequence[int], types: Sequence[str], limit: int, *, per_query: bool
    ) -> str:
        """Return the statement that reads many queries, on PostgreSQL.

        Its first parameters are arrays of the parameters that vary, whose positions are given. The
        others follow. Its rows are the number of a query, which begins with one, and a key.

        It reads at most ``limit + 1`` keys: of each query if ``per_query``, or else in all, which
        takes a fourth of the time, since the database can join the parameters like a table.
        """
        names = {position: f"p{n}" for n, position in enumerate(varying)}
        sql = replace_placeholders(
            self.sql, lambda n: f"realtime_values.{names[n]}" if n in names else "%s"
        )
        arrays = ", ".join(f"%s::{type}[]" for type in types)
        columns = ", ".join([*names.values(), "n"])
        keys = _limited(sql, limit) if per_query else sql
        end = "" if per_query else f" LIMIT {limit + 1:d}"
        return (
            "SELECT DISTINCT realtime_values.n, realtime_keys.k "  # noqa: S608
            f"FROM unnest({arrays}) WITH ORDINALITY AS realtime_values({columns}) "
            f"CROSS JOIN LATERAL ({keys}) AS realtime_keys(k) "
            f"WHERE realtime_keys.k IS NOT NULL{end}"
        )

    def convert(self, keys: Iterable[Any]) -> list[Any]:
        """Return keys of the database as values of the field."""
        connection = connections[self.using]
        column: Any = Col(self.field.model._meta.db_table, self.field)
        if self._converters is None:
            backend = connection.ops.get_db_converters(column)
            self._converters = [*backend, *column.get_db_converters(connection)]
        converted = list(keys)
        for convert in self._converters:
            converted = [convert(key, column, connection) for key in converted]
        return converted


_shapes: weakref.WeakValueDictionary[tuple[Any, ...], KeyShape] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def find_shape(
    using: str,
    sql: str,
    field: models.Field[Any, Any],
    query: Query,
    comparisons: Comparisons,
) -> KeyShape:
    """Return the shape of a query, and read what it reads if the shape is new.

    Raises `UnsupportedQuery`.
    """
    key = (using, sql, field, tuple(comparisons.structure))
    with _lock:
        shape = _shapes.get(key)
        if shape is None:
            reads = read_dependencies(query, using, comparisons) if sql else {}
            if unknown := unknown_tables(sql, using, reads):
                raise UnsupportedQuery(
                    f"A key query reads {', '.join(sorted(unknown))} in a way that is not "
                    "understood: write it as a filter over relations."
                )
            shape = KeyShape(using, sql, field, reads, tuple(comparisons.items))
            _shapes[key] = shape
        return shape


def replace_placeholders(sql: str, replacement: Callable[[int], str]) -> str:
    """Return a statement in which each placeholder is replaced, given its number."""
    number = -1

    def replace(match: re.Match[str]) -> str:
        nonlocal number
        if match[0] == "%%":
            return "%%"
        number += 1
        return replacement(number)

    return _PLACEHOLDER.sub(replace, sql)


def parameter_type(values: Iterable[Any]) -> str | None:
    """Return PostgreSQL's type for parameters, or None if they have none in common."""
    types = {_type_of(value) for value in values if value is not None}
    return types.pop() if len(types) == 1 else None


def _type_of(value: Any) -> str | None:
    if isinstance(value, datetime) and value.tzinfo is None:
        return "timestamp"
    return next((name for cls, name in _SQL_TYPES if isinstance(value, cls)), None)


def _limited(sql: str, limit: int) -> str:
    return (
        f"WITH realtime_keys(k) AS ({sql}) "  # noqa: S608
        f"SELECT DISTINCT k FROM realtime_keys WHERE k IS NOT NULL LIMIT {limit + 1:d}"
    )
