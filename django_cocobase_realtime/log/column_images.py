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

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from django.db import DatabaseError, connections, models, transaction
from django.utils.dateparse import parse_date, parse_datetime, parse_time

from ..declarations.collection import Collection
from ..declarations.row_reader import Row, RowReader
from ..events import Image
from ..utils.transactions import own_statements

# an image of a trigger: values by column for each table
Columns = Sequence[dict[str, Any] | None]

_decode = msgspec.json.Decoder(list[dict[str, Any] | None]).decode
_decode_raw = msgspec.json.Decoder(list[dict[str, msgspec.Raw] | None]).decode

# conversions that Python's driver of SQLite applies by the declared type of a column
_SQLITE_TYPES = {
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


def convert(
    collection: Collection, using: str, texts: Iterable[str]
) -> dict[str, tuple[str | None, Image]]:
    """Return the document id and the image for each image of a trigger.

    The document id is None if the image lacks a column of the primary key.
    """
    texts = list(dict.fromkeys(texts))
    tables = _tables(collection, using)
    if connections[using].vendor == "postgresql":
        rows = _read_postgres(using, tables, [_decode_raw(text) for text in texts])
    else:
        rows = [_read_sqlite(using, tables, _decode(text)) for text in texts]
    codec = collection.codec
    keys = [str(field.attname) for field in codec.model._meta.pk_fields]
    converted = {}
    for text, row in zip(texts, rows, strict=True):
        document_id = None
        if all(row.get(name) is not None for name in keys):
            values = tuple(row[name] for name in keys)
            document_id = codec.document_id(values if len(values) > 1 else values[0])
        converted[text] = document_id, codec.partial_image(row)
    return converted


def _tables(collection: Collection, using: str) -> list[RowReader]:
    """Return what reads the columns of each table of the collection's rows."""
    codec = collection.codec
    model = codec.model
    wanted = {*codec.fields.values(), *model._meta.pk_fields}
    return [
        RowReader(
            [f for f in model._meta.concrete_fields if f in wanted and f.model is owner],
            codec.raw_names,
            owner,
            using,
        )
        for owner in row_tables(model)
    ]


def _read_sqlite(using: str, tables: list[RowReader], image: Columns) -> Row:
    row: Row = {}
    for reader, columns in zip(tables, image, strict=False):
        if columns is None:
            continue
        names = [str(field.column) for field in reader.fields]
        values = [
            _sqlite_value(columns.get(name), field.db_type(connections[using]))
            for name, field in zip(names, reader.fields, strict=True)
        ]
        row |= _present(reader, names, columns, reader.row(values))
    return row


def _sqlite_value(value: Any, declared_type: str | None) -> Any:
    """Return what Python's driver of SQLite returns for a column of the declared type."""
    if isinstance(value, list):
        kind, text = value
        value = float(text) if kind == "r" else bytes.fromhex(text)
    convert_text = _SQLITE_TYPES.get((declared_type or "").partition("(")[0].lower())
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


def _read_postgres(
    using: str, tables: list[RowReader], images: Sequence[Sequence[dict[str, msgspec.Raw] | None]]
) -> list[Row]:
    """Let PostgreSQL convert all images at once; one by one if it refuses a value."""
    try:
        return _populate(using, tables, images)
    except DatabaseError:
        if len(images) == 1:
            return [{}]
    return [row for image in images for row in _read_postgres(using, tables, [image])]


def _populate(
    using: str, tables: list[RowReader], images: Sequence[Sequence[dict[str, msgspec.Raw] | None]]
) -> list[Row]:
    rows: list[Row] = [{} for _ in images]
    connection = connections[using]
    # within a transaction, an error must not break it
    in_transaction = connection.in_atomic_block
    for index, reader in enumerate(tables):
        objects = [image[index] if index < len(image) else None for image in images]
        table = connection.ops.quote_name(reader.model._meta.db_table)
        sql = (
            f"SELECT {', '.join(reader.columns)} "  # noqa: S608 - names of the project's table
            f"FROM jsonb_populate_recordset(NULL::{table}, %s::jsonb)"
        )
        document = msgspec.json.encode([columns or {} for columns in objects]).decode()
        with (
            own_statements(using),
            transaction.atomic(using, savepoint=in_transaction),
            connection.cursor() as cursor,
        ):
            cursor.execute(sql, [document])
            found = cursor.fetchall()
        names = [str(field.column) for field in reader.fields]
        for row, columns, values in zip(rows, objects, found, strict=True):
            if columns is not None:
                row |= _present(reader, names, columns, reader.row(values))
    return rows


def _present(reader: RowReader, names: list[str], columns: dict[str, Any], row: Row) -> Row:
    """Return the values of the columns that the image has."""
    if len(columns) >= len(names) and all(name in columns for name in names):
        return row
    return {
        attname: row[attname]
        for attname, name in zip(reader.attnames, names, strict=True)
        if name in columns
    }
