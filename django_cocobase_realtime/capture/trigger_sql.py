"""SQL for PostgreSQL that builds row images as `RowCodec` does.

An image is a JSON object with the values of a row's fields.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import Any

from django.db import models

from ..declarations.collection import Collection
from ..declarations.serialization import MAX_SAFE_INTEGER, RowCodec

# fields per call of jsonb_build_object: PostgreSQL allows 100 arguments, and a field takes two
_OBJECT_FIELDS = 40


TRIGGER_PREFIX = "cocobase_realtime_"  # of all names of triggers and of their functions


def trigger_name(collection: Collection) -> str:
    """Return the name of the database function that a collection's triggers call."""
    return TRIGGER_PREFIX + blake2s(collection.stream.encode(), digest_size=8).hexdigest()


def quote(name: str) -> str:
    """Return a name as an SQL identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a string as an SQL literal, quoted."""
    return "'" + value.replace("'", "''") + "'"


def image(codec: RowCodec, row: str) -> str:
    """Return an SQL expression for the image, as jsonb, of the row that SQL calls ``row``."""
    pairs = [
        f"{text(name)}, {value(field, f'{row}.{quote(str(field.column))}')}"
        for name, field in codec.fields.items()
        for value in (_raw_value if name in codec.raw_names else _value,)
    ]
    parts = [pairs[i : i + _OBJECT_FIELDS] for i in range(0, len(pairs), _OBJECT_FIELDS)]
    return " || ".join(f"jsonb_build_object({', '.join(part)})" for part in parts)


def document_id(codec: RowCodec, row: str) -> str:
    """Return an expression for the document id, equal to that of `RowCodec.document_id`."""
    fields = codec.model._meta.pk_fields
    columns = [f"{row}.{quote(str(field.column))}" for field in fields]
    if len(fields) == 1:
        return f"{columns[0]}::text"
    values = (_value(field, column) for field, column in zip(fields, columns, strict=True))
    texts = " || ',' || ".join(f"to_json({value})::text" for value in values)
    return f"'[' || {texts} || ']'"


def _raw_value(field: models.Field[Any, Any], column: str) -> str:
    """Return what the database holds, in the form of ``serialization.encode_raw``."""
    if not isinstance(field, models.BinaryField):
        return f"to_jsonb({column})"
    encoded = f"translate(encode({column}, 'base64'), E'\\n', '')"
    return f"CASE WHEN {column} IS NOT NULL THEN jsonb_build_object('bytes', {encoded}) END"


def _value(field: models.Field[Any, Any], column: str) -> str:
    """Return an SQL expression for a column's value as clients receive it: JSON, or text.

    SQL's NULL stays NULL.
    """
    if isinstance(field, models.ForeignKey) or field.primary_key:
        return f"{column}::text"
    output = getattr(field, "output_field", None)
    match output if getattr(field, "generated", False) else field:
        case models.BooleanField() | models.JSONField():
            return column
        case models.IntegerField():
            safe = f"{column} BETWEEN -{MAX_SAFE_INTEGER} AND {MAX_SAFE_INTEGER}"
            return f"CASE WHEN {safe} THEN to_jsonb({column}) ELSE to_jsonb({column}::text) END"
        case models.FloatField():
            special = f"replace(lower({column}::text), 'infinity', 'inf')"
            finite = f"{column}::text NOT IN ('NaN', 'Infinity', '-Infinity')"
            return f"CASE WHEN {finite} THEN to_jsonb({column}) ELSE to_jsonb({special}) END"
        case models.DateTimeField():
            in_utc = f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
            return f"replace({in_utc}, '.000000', '') || '+00:00'"
        case models.DateField():
            return f"to_char({column}, 'YYYY-MM-DD')"
        case models.TimeField():
            return f"replace(to_char({column}, 'HH24:MI:SS.US'), '.000000', '')"
        case models.DurationField():
            return _duration(column)
        case models.BinaryField():
            return f"translate(encode({column}, 'base64'), E'\\n', '')"
        case models.GenericIPAddressField():
            return f"host({column})"
        case models.DecimalField() | models.UUIDField() | models.CharField() | models.TextField():
            return f"{column}::text"
    base = getattr(field, "base_field", None)
    if isinstance(base, models.Field):
        return _range(base, column) if hasattr(field, "range_type") else _array(base, column)
    return f"to_jsonb({column})"


def _array(base: models.Field[Any, Any], column: str) -> str:
    """Return an SQL expression for an array, whose values are those of the field ``base``."""
    if hasattr(base, "base_field"):  # several dimensions, which `unnest` would not keep
        while isinstance(getattr(base, "base_field", None), models.Field):
            base = base.base_field
        is_text = _value(base, column) == f"{column}::text"
        return f"to_jsonb({column}::text[])" if is_text else f"to_jsonb({column})"
    items = (
        f"SELECT jsonb_agg({_value(base, 'item')} ORDER BY place) "  # noqa: S608
        f"FROM unnest({column}) WITH ORDINALITY AS items(item, place)"
    )
    return f"CASE WHEN {column} IS NOT NULL THEN coalesce(({items}), '[]'::jsonb) END"


def _range(base: models.Field[Any, Any], column: str) -> str:
    """Return an SQL expression for a range of values of ``base``, as Python's text of it."""

    def bound(name: str) -> str:
        value = f"{name}({column})"
        shown = f"{value}::text"
        if isinstance(base, models.DateTimeField):
            in_utc = f"to_char({value} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
            shown = f"replace({in_utc}, '.000000', '') || '+00:00'"
        return f"coalesce({shown}, 'None')"

    start = f"CASE WHEN lower_inc({column}) THEN '[' ELSE '(' END"
    end = f"CASE WHEN upper_inc({column}) THEN ']' ELSE ')' END"
    shown = f"{start} || {bound('lower')} || ', ' || {bound('upper')} || {end}"
    shown = f"CASE WHEN isempty({column}) THEN 'empty' ELSE {shown} END"
    return f"CASE WHEN {column} IS NOT NULL THEN {shown} END"


def _duration(column: str) -> str:
    """Return an SQL expression for an interval, in the ISO 8601 form that Django writes."""
    total = f"(extract(epoch FROM {column}) * 1000000)::bigint"
    size = f"abs({total})"
    day, hour, minute = 86_400_000_000, 3_600_000_000, 60_000_000

    def two(number: str) -> str:
        return f"lpad(({number})::text, 2, '0')"

    micro = f"{size} % 1000000"
    fraction = f"CASE WHEN {micro} = 0 THEN '' ELSE '.' || lpad(({micro})::text, 6, '0') END"
    return (
        f"CASE WHEN {total} < 0 THEN '-' ELSE '' END || 'P' || ({size} / {day})::text || 'DT' || "
        f"{two(f'{size} % {day} / {hour}')} || 'H' || {two(f'{size} % {hour} / {minute}')} || 'M' "
        f"|| {two(f'{size} % {minute} / 1000000')} || {fraction} || 'S'"
    )
