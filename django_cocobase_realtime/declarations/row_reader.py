"""Conversion of the values that a database driver returns, as a query of the ORM converts them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connections, models
from django.db.models.sql import Query

from .serialization import raw_column

Row = dict[str, Any]
"""Values by attname, as `RowCodec.image` takes them."""


class RowReader:
    """Reads columns of one table from the tuples that ``RETURNING`` or ``SELECT`` gives.

    It applies the converters that the ORM would apply, so that a value is the same as in a query.
    """

    def __init__(
        self,
        fields: Sequence[models.Field[Any, Any]],
        codec_raw: frozenset[str],
        model: type[models.Model],
        using: str,
    ) -> None:
        connection = connections[using]
        quote = connection.ops.quote_name
        table = model._meta.db_table
        self.model = model
        self.fields = tuple(fields)
        self.attnames = tuple(str(field.attname) for field in fields)
        self.columns = tuple(quote(str(field.column)) for field in fields)
        # names that stay unambiguous in a statement with several tables
        self.qualified = tuple(f"{quote(table)}.{column}" for column in self.columns)
        self._raw_names = codec_raw
        self._connection = connection
        compiler: Any = Query(model).get_compiler(using)
        expressions = [raw_column(f.get_col(table), f.name in codec_raw) for f in fields]
        self._converters: list[tuple[int, Any, Any]] = [
            (index, convert, expression)
            for index, (functions, expression) in compiler.get_converters(expressions).items()
            for convert in functions
        ]

    def with_field(self, index: int) -> RowReader:
        """Return the reader of one of the columns."""
        field = self.fields[index]
        return RowReader([field], self._raw_names, self.model, self._connection.alias)

    def row(self, values: Sequence[Any]) -> Row:
        """Return the values of one tuple by attname."""
        if self._converters:
            converted = list(values)
            for index, convert, expression in self._converters:
                # a value that the field refuses, such as a decimal with too many digits, can be
                # written, so it must not make the write fail; it is logged as it is
                with suppress(ArithmeticError, TypeError, ValueError, ValidationError):
                    converted[index] = convert(converted[index], expression, self._connection)
            values = converted
        return dict(zip(self.attnames, values, strict=True))
