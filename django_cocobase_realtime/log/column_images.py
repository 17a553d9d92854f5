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

from ..declarations.collection import Collection
from ..declarations.row_reader import Row, RowReader
from ..events import Image
from ..utils.transactions import own_statements

logger = logging.getLogger(__name__)

# class of PostgreSQL's error codes for what exceeds a limit; Django counts it as a lost connection
_TOO_COMPLEX = "54"
# an image of a trigger: values by column for each table
Columns = Sequence[dict[str, Any] | None]
# the same with values that are not decoded yet
RawColumns = Sequence[dict[str, msgspec.Raw] | None]

_decode = msgspec.json.Decoder(list[dict[str, Any] | None]).decode
_decode_raw = msgspec.json.Decoder(list[dict[str, msgspec.Raw] | None]).decode

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


def row_tables(model: type[models.Model]) -> list[type[models.Model]]:
    """Return the models whose tables hold a row of ``model``: itself, then its parents."""
    return [model, *(parent for parent in model._meta.all_parents if not parent._meta.proxy)]


# document id and image
Converted = tuple[str | None, Image]


def convert(collection: Collection, using: str, texts: Iterable[str]) -> dict[str, Converted]:
    """Return the document id and the image for each image of a trigger.

    The document id is None if the image lacks a column of the primary key. An image that cannot be
    converted is empty. Raises ``OperationalError`` and ``InterfaceError``, as without a connection.
    """
    texts = list(dict.fromkeys(texts))
    return dict(zip(texts, _convert(collection, using, texts), strict=True))


def _convert(collection: Collection, using: str, texts: Sequence[str]) -> list[Converted]:
    """Convert all images at once; if one of them is refused, convert the others without it."""
    tables = _tables(collection, using)
    try:
        if connections[using].vendor == "postgresql":
            rows = _read_postgres(using, tables, [_decode_raw(text) for text in texts])
        else:
            rows = [_read_sqlite(tables, _decode(text)) for text in texts]
        return [_converted(collection, row) for row in rows]
    except (OperationalError, InterfaceError) as error:
        if not str(getattr(error.__cause__, "sqlstate", "")).startswith(_TOO_COMPLEX):
            raise
        refused: Exception = error
    except Exception as error:  # of the database, or of a field of the project
        refused = error
    if len(texts) == 1:
        logger.warning("A row of collection %r cannot be read: %s", collection.name, refused)
        return [(None, {})]
    half = len(texts) // 2
    parts = texts[:half], texts[half:]
    return [pair for part in parts for pair in _convert(collection, using, part)]


def _converted(collection: Collection, row: Row) -> Converted:
    codec = collection.codec
    document_id = None
    keys = [row.get(str(field.attname)) for field in codec.model._meta.pk_fields]
    if None not in keys:
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


@lru_cache(maxsize=256)
def _tables(collection: Collection, using: str) -> list[_Table]:
    """Return what reads the columns of each table of a collection's rows."""
    codec, connection = collection.codec, connections[using]
    model = codec.model
    wanted = {*codec.fields.values(), *model._meta.pk_fields}
    tables = []
    for owner in row_tables(model):
        fields = [f for f in model._meta.concrete_fields if f in wanted and f.model is owner]
        types = [(field.db_type(connection) or "").partition("(")[0] for field in fields]
        tables.append(
            _Table(
                RowReader(fields, codec.raw_names, owner, using),
                tuple(str(field.column) for field in fields),
                tuple(_SQLITE_CONVERTERS.get(type.lower()) for type in types),
            )
        )
    return tables


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


def _read_postgres(using: str, tables: list[_Table], images: Sequence[RawColumns]) -> list[Row]:
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
            found = cursor.fetchall()
        for row, columns, values in zip(rows, objects, found, strict=True):
            if columns is not None:
                row |= table.present(columns, table.reader.row(values))
    return rows
