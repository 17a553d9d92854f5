"""PostgreSQL triggers that write the log: for raw SQL and other programs.

A collection with ``capture = "triggers"`` is logged by its table's trigger and by nothing else,
so nothing is logged twice. The row images are built in SQL, field by field, equal to what
`documents.RowCodec` makes of the same row. TRUNCATE fires no row trigger and is not seen.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import Any

from django.db import connections, models

from ..collection import Collection, trigger_name
from ..log.models import LogEvent
from ..registry import registry

MAX_SAFE_INTEGER = 2**53 - 1
_OBJECT_FIELDS = 40  # a function takes 100 arguments at most, a field takes two


def by_triggers() -> list[Collection]:
    """Collections that are captured so."""
    return [collection for collection in registry if collection.capture == "triggers"]


def install(collection: Collection) -> None:
    """Create or replace the collection's trigger. Raises ``ValueError`` for other databases."""
    connection = connections[collection.database]
    if connection.vendor != "postgresql":
        raise ValueError(
            f"Triggers need PostgreSQL; {collection.name!r} is in {connection.vendor}."
        )
    with connection.cursor() as cursor:
        for statement in install_sql(collection):
            cursor.execute(statement)


def remove(collection: Collection) -> bool:
    """Drop the collection's trigger; False where there was none."""
    there = is_installed(collection)
    connection = connections[collection.database]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for statement in remove_sql(collection):
                cursor.execute(statement)
    return there


def is_installed(collection: Collection) -> bool:
    """Whether the database has the trigger, as this version would write it."""
    connection = connections[collection.database]
    if connection.vendor != "postgresql":
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT obj_description(t.oid, 'pg_trigger') FROM pg_trigger t "
            "WHERE t.tgname = %s AND t.tgrelid = to_regclass(%s)",
            [trigger_name(collection.name), _quote(collection.concrete_model._meta.db_table)],
        )
        row = cursor.fetchone()
    return row is not None and row[0] == _digest(collection)


def install_sql(collection: Collection) -> list[str]:
    """Statements, in order. Names are quoted; nothing in them comes from a client."""
    name, table = (
        _quote(trigger_name(collection.name)),
        _quote(collection.concrete_model._meta.db_table),
    )
    return [
        _function(collection),
        f"DROP TRIGGER IF EXISTS {name} ON {table}",
        f"CREATE TRIGGER {name} AFTER INSERT OR UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {name}()",
        f"COMMENT ON TRIGGER {name} ON {table} IS {_text(_digest(collection))}",
    ]


def remove_sql(collection: Collection) -> list[str]:
    """Statements, in order."""
    name, table = (
        _quote(trigger_name(collection.name)),
        _quote(collection.concrete_model._meta.db_table),
    )
    return [f"DROP TRIGGER IF EXISTS {name} ON {table}", f"DROP FUNCTION IF EXISTS {name}()"]


def _digest(collection: Collection) -> str:
    return blake2s(_function(collection).encode(), digest_size=16).hexdigest()


def _function(collection: Collection) -> str:
    key = _quote(str(collection.concrete_model._meta.pk.column))
    log = _quote(LogEvent._meta.db_table)
    name = _text(collection.name)
    function = _quote(trigger_name(collection.name))
    old, new = _image(collection, "OLD"), _image(collection, "NEW")
    # names and literals of the project's own code, quoted; nothing that a client sent
    return f"""CREATE OR REPLACE FUNCTION {function}() RETURNS trigger AS $body$
DECLARE
    b jsonb;
    a jsonb;
    changes text;
    document text;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        b := {old};
        document := OLD.{key}::text;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        a := {new};
        document := NEW.{key}::text;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        SELECT coalesce(jsonb_agg(field.key), '[]'::jsonb)::text INTO changes
        FROM jsonb_each(a) AS field WHERE b -> field.key IS DISTINCT FROM field.value;
    END IF;
    INSERT INTO {log}
        (collection, transaction_id, op, document_id, before, after, changed, created_at)
    VALUES (
        {name}, pg_current_xact_id()::text,
        CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'updated' ELSE 'deleted' END,
        document, b::text, a::text, changes, clock_timestamp()
    );
    RETURN NULL;
END
$body$ LANGUAGE plpgsql"""  # noqa: S608


def _image(collection: Collection, row: str) -> str:
    pairs = [
        f"{_text(name)}, {_value(field, f'{row}.{_quote(str(field.column))}')}"
        for name, field in collection.codec.fields.items()
    ]
    parts = [pairs[i : i + _OBJECT_FIELDS] for i in range(0, len(pairs), _OBJECT_FIELDS)]
    return " || ".join(f"jsonb_build_object({', '.join(part)})" for part in parts)


def _value(field: models.Field[Any, Any], column: str) -> str:
    """A column's value in wire form, as JSON or as text; null stays null."""
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
            text = f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
            return f"replace({text}, '.000000', '') || '+00:00'"
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
    return f"to_jsonb({column})"


def _duration(column: str) -> str:
    """An interval as ISO 8601, digit by digit as Django writes it."""
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


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
