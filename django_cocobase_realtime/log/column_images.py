"""Images that triggers of the database wrote, and their conversion to the images of the ORM's.

A trigger writes the columns of a row as the database holds them, because only Python code knows how
a field shows its column. Its image is a JSON array with one object per table of the row: that of
the model, then those of its parents (`row_tables`), or null if the table has no row. An object
has values by column.

* SQLite: integers and text are JSON values, reals ``["r", "1.5e+00"]``, BLOBs ``["x", "00ff"]``.
* PostgreSQL: the values of ``to_jsonb``. PostgreSQL itself makes a row of them again.

When an event is read, the values are converted as those of a query. An image lacks the fields
whose columns the trigger did not know, or whose values the column does not accept any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
from django.db import InterfaceError, OperationalError, connections, models, transaction
from django.utils.dateparse import parse_date, parse_datetime, parse_time

from ..declarations.capture_mode import Captured, title
from ..declarations.row_reader import Row, RowReader
from ..declarations.serialization import RowCodec
from ..events import Image
from ..utils.transactions import own_statements

logger = logging.getLogger(__name__)

# class of PostgreSQL's error codes for what exceeds a limit; Django counts it as a lost connection
_TOO_COMPLEX = "54"
# an image of a trigger: values by column for each table; PostgreSQL decodes them itself
Columns = Sequence[dict[str, Any] | None]

_decode_sqlite = msgspec.json.Decoder(list[dict[str, Any] | None]).decode
_decode_postgres = msgspec.json.Decoder(list[dict[str, msgspec.Raw] | None]).decode

# conversions that Python's driver of SQLite applies by the declared type of a column
_SQLITE_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: text == "1",
    "date": parse_date,
    "datetime": parse_datetime,
    "time": parse_time,
    "timestamp": parse_datetime,
}


def is_by_column(text: str | None) -> bool:
    """Return whether an image in the log was written by a trigger."""
    return text is not None and text.startswith("[")


def table_fields(codec: RowCodec, owner: type[models.Model]) -> list[models.Field[Any, Any]]:
    """Return the fields of images, and of the key, whose columns are in the table of ``owner``."""
    wanted = {*codec.fields.values(), *codec.model._meta.pk_fields}
    fields = codec.model._meta.concrete_fields
    return [field for field in fields if field in wanted and field.model is owner]


# document id and image
Converted = tuple[str | None, Image]


def convert(collection: Captured, using: str, texts: Iterable[str]) -> dict[str, Converted]:
    """Return the document id and the image for each image of a trigger.

    The document id is None if the image lacks a column of the primary key. Values that cannot be
    converted are left out. Raises ``OperationalError`` and ``InterfaceError``, as for a lost
    connection.
    """
    texts = list(dict.fromkeys(texts))
    return dict(zip(texts, _convert(collection, using, texts), strict=True))


def _convert(collection: Captured, using: str, texts: Sequence[str]) -> list[Converted]:
    """Convert all images at once; if a value is refused, find the image that has it."""
    tables = _tables(collection, using)
    try:
        rows = _read(using, tables, [_decode(using, text) for text in texts])
        return [_converted(collection, row) for row in rows]
    except Exception as error:
        _raise_if_passing(error)
    if len(texts) == 1:
        return [_convert_by_column(collection, using, texts[0])]
    half = len(texts) // 2
    parts = texts[:half], texts[half:]
    return [pair for part in parts for pair in _convert(collection, using, part)]


def _convert_by_column(collection: Captured, using: str, text: str) -> Converted:
    """Convert the values of an image one by one, and leave out those that are refused."""
    row: Row = {}
    try:
        image = _decode(using, text)
    except (ValueError, RecursionError):
        image = []
    for table, columns in zip(_tables(collection, using), image, strict=False):
        for index, name in enumerate(table.columns):
            if columns is None or name not in columns:
                continue
            try:
                (one,) = _read(using, [table.with_column(index)], [[{name: columns[name]}]])
                collection.codec.partial_image(one)
                row |= one
            except Exception as error:
                _raise_if_passing(error)
                logger.warning(
                    "A value of column %r of %s cannot be read: %s",
                    name,
                    title(collection),
                    error,
                )
    return _converted(collection, row)


def _raise_if_passing(error: Exception) -> None:
    """Raise an exception again that does not come from a value, as for a lost connection."""
    if isinstance(error, OperationalError | InterfaceError):
        state = str(getattr(error.__cause__, "sqlstate", None))
        if not state.startswith(_TOO_COMPLEX):
            raise error


def _converted(collection: Captured, row: Row) -> Converted:
    codec = collection.codec
    document_id = None
    keys = [row.get(str(field.attname)) for field in codec.model._meta.pk_fields]
    if all(key is not None for key in keys):
        document_id = codec.document_id(tuple(keys) if len(keys) > 1 else keys[0])
    return document_id, codec.partial_image(row)


@dataclass(frozen=True)
class _Table:
    """Reads the columns of one table of the rows of a collection."""

    reader: RowReader
    # names of the columns, in the order of the reader's fields
    columns: tuple[str, ...]
    # conversions that Python's driver of SQLite applies to them
    sqlite_converters: tuple[Callable[[str], Any] | None, ...]

    def present(self, image: dict[str, Any], row: Row) -> Row:
        """Return the values of the columns that an image has."""
        if all(name in image for name in self.columns):
            return row
        return {
            attname: row[attname]
            for attname, name in zip(self.reader.attnames, self.columns, strict=True)
            if name in image
        }

    def with_column(self, index: int) -> _Table:
        """Return what reads one of the columns."""
        return _Table(
            self.reader.with_field(index),
            self.columns[index : index + 1],
            self.sqlite_converters[index : index + 1],
        )


@lru_cache(maxsize=256)
def _tables(collection: Captured, using: str) -> list[_Table]:
    """Return what reads the columns of each table of a collection's rows."""
    codec, connection = collection.codec, connections[using]
    tables = []
    for owner in collection.tables:
        fields = table_fields(codec, owner)
        types = [(field.db_type(connection) or "").partition("(")[0] for field in fields]
        tables.append(
            _Table(
                RowReader(fields, codec.raw_names, owner, using),
                tuple(str(field.column) for field in fields),
                tuple(_SQLITE_CONVERTERS.get(type.lower()) for type in types),
            )
        )
    return tables


def _decode(using: str, text: str) -> Columns:
    is_postgres = connections[using].vendor == "postgresql"
    return _decode_postgres(text) if is_postgres else _decode_sqlite(text)


def _read(using: str, tables: list[_Table], images: Sequence[Columns]) -> list[Row]:
    """Return the rows of images, with the values that a query of the ORM returns."""
    if connections[using].vendor == "postgresql":
        return _read_postgres(using, tables, images)
    return [_read_sqlite(tables, image) for image in images]


def _read_sqlite(tables: list[_Table], image: Columns) -> Row:
    row: Row = {}
    for table, columns in zip(tables, image, strict=False):
        if columns is not None:
            values = [
                _sqlite_value(columns.get(name), convert)
                for name, convert in zip(table.columns, table.sqlite_converters, strict=True)
            ]
            row |= table.present(columns, table.reader.row(values))
    return row


def _sqlite_value(value: Any, convert_text: Callable[[str], Any] | None) -> Any:
    """Return what Python's driver of SQLite returns for a value in an image."""
    if isinstance(value, list):
        kind, text = value
        value = float(text) if kind == "r" else bytes.fromhex(text)
    if value is None or convert_text is None:
        return value
    if value in ("", b""):
        return None  # the driver's converters are not called
    try:
        return convert_text(
            value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        )
    except ValueError:
        return value


def _read_postgres(using: str, tables: list[_Table], images: Sequence[Columns]) -> list[Row]:
    """Let PostgreSQL convert images."""
    rows: list[Row] = [{} for _ in images]
    connection = connections[using]
    # within a transaction, an error must not break it
    in_transaction = connection.in_atomic_block
    for index, table in enumerate(tables):
        objects = [image[index] if index < len(image) else None for image in images]
        name = connection.ops.quote_name(table.reader.model._meta.db_table)
        sql = (
            f"SELECT {', '.join(table.reader.columns)} "  # noqa: S608 - names of the project's table
            f"FROM jsonb_populate_recordset(NULL::{name}, %s::jsonb)"
        )
        document = msgspec.json.encode([columns or {} for columns in objects]).decode()
        with (
            own_statements(using),
            transaction.atomic(using, savepoint=in_transaction),
            connection.cursor() as cursor,
        ):
            cursor.execute(sql, [document])
            converted = cursor.fetchall()
        for row, columns, values in zip(rows, objects, converted, strict=True):
            if columns is not None:
                row |= table.present(columns, table.reader.row(values))
    return rows
