"""SQLite's triggers: one for each row that a statement writes.

They use only functions of SQLite itself, since other programs do not have ours. An image has all
that a column can hold: the digits of a real that ``json_object`` would lose, and BLOBs, which it
refuses (see `log.column_images`). SQLite has no id of the transaction: the column is empty, and
events that are read together count as one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2s

from django.db import connections, models

from ...models import LogEvent
from .sources import (
    NAME_LENGTH,
    TRIGGER_PREFIX,
    Installed,
    Source,
    Tables,
    column_of,
    content_type_condition,
    joined_tables,
    quote,
    reference_columns,
    related_field,
    text,
)

# concatenations that SQLite nests without parentheses; more would exceed its depth of expressions
_CHUNK = 20
_NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now')"


def install_sql(source: Source) -> list[str]:
    """Return the statements that create the triggers of a table, which must not exist."""
    return list(_triggers(source).values())


def digest(source: Source) -> str:
    """Return what identifies the triggers of a table in their present form."""
    return _digest(_triggers(source).values())


def installed(using: str) -> dict[str, Installed]:
    """Return what is installed by the names of the sources."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' "
            "AND name GLOB %s ORDER BY name",
            [f"{TRIGGER_PREFIX}*"],
        )
        rows = cursor.fetchall()
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for name, table, sql in rows:
        groups.setdefault(name.rpartition("_")[0], []).append((name, table, sql))
    return {
        group: Installed(
            _digest(sql for _, _, sql in triggers),
            frozenset(table.lower() for _, table, _ in triggers),
            [f"DROP TRIGGER IF EXISTS {quote(name)}" for name, _, _ in triggers],
            [],
            {},
        )
        for group, triggers in groups.items()
    }


def logged_tables(using: str) -> Tables:
    """Return the tables whose triggers log, by the names of the sources."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            # without the SQL of the triggers, which is long
            "SELECT DISTINCT substr(name, 1, %s), lower(tbl_name) FROM sqlite_master "
            "WHERE type = 'trigger' AND name GLOB %s",
            [NAME_LENGTH, f"{TRIGGER_PREFIX}*"],
        )
        return {name: frozenset([table]) for name, table in cursor.fetchall()}


def table_names(using: str) -> set[str]:
    """Return the names of all tables, in lower case."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT lower(name) FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in cursor.fetchall()}


def _digest(statements: Iterable[str]) -> str:
    return blake2s("\n".join(sorted(statements)).encode(), digest_size=16).hexdigest()


def _triggers(source: Source) -> dict[str, str]:
    """Return the CREATE statements by name."""
    table = quote(source.model._meta.db_table)
    keys = source.key_columns()
    same_key = " AND ".join(f"OLD.{quote(key)} IS NEW.{quote(key)}" for key in keys)
    bodies: dict[str, tuple[str, list[str]]] = {}
    if source.related is not None:
        columns = map(quote, reference_columns(source))
        reassigned = " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in columns)
        bodies["insert"] = "INSERT", [_related_event(source, ["NEW"])]
        bodies["delete"] = "DELETE", [_related_event(source, ["OLD"])]
        bodies["update"] = f"UPDATE|{reassigned}", [_related_event(source, ["OLD", "NEW"])]
    elif source.is_own:
        bodies["insert"] = "INSERT", [_event(source, "created", new="NEW")]
        bodies["delete"] = "DELETE", [_event(source, "deleted", old="OLD")]
        bodies["update"] = f"UPDATE|{same_key}", [_event(source, "updated", old="OLD", new="NEW")]
        # a row whose key changed is another document
        bodies["key"] = (
            f"UPDATE|NOT ({same_key})",
            [_event(source, "deleted", old="OLD"), _event(source, "created", new="NEW")],
        )
    else:
        # a save writes all tables of a row: those without a change are left out
        shown = source.columns(source.tables.index(source.model))
        changed = " OR ".join(f"OLD.{quote(c)} IS NOT NEW.{quote(c)}" for c in shown) or "0"
        bodies["update"] = f"UPDATE|{changed}", [_event(source, "updated", old="OLD", new="NEW")]
    triggers = {}
    for suffix, (event, statements) in bodies.items():
        name = f"{source.name}_{suffix}"
        operation, _, condition = event.partition("|")
        when = f" WHEN {condition}" if condition else ""
        triggers[name] = (
            f"CREATE TRIGGER {quote(name)} AFTER {operation} ON {table}{when} "
            f"BEGIN {' '.join(f'{statement};' for statement in statements)} END"
        )
    return triggers


def _event(source: Source, op: str, *, old: str | None = None, new: str | None = None) -> str:
    """Return the INSERT of an event; ``old`` and ``new`` are the written row."""
    if op == "updated" and not source.collection.track:
        old = None
    row = new or old
    images = [_image(source, alias) if alias is not None else "NULL" for alias in (old, new)]
    aliases, joins, conditions = joined_tables(source, row, _table)
    # an image with the old row needs the same joins, by the row's key, which is unchanged
    key = _key_text(source, aliases[0])
    return _insert(source, op, key, images, "NULL", joins, conditions)


def _related_event(source: Source, rows: list[str]) -> str:
    """Return the INSERT of an event for the rows to which rows of a through table refer."""
    related = source.related
    assert related is not None
    aliases, joins, conditions = joined_tables(source, None, _table)
    target = related_field(source)
    owner = aliases[source.tables.index(target.model)]
    column = quote(column_of(source.model, related.source))
    referring = ", ".join(f"{row}.{column}" for row in rows)
    conditions.append(f"{owner}.{quote(str(target.column))} IN ({referring})")
    conditions += [
        f"{rows[-1]}.{quote(column_of(source.model, name))} = {value}"
        for name, value in content_type_condition(related, _table)
    ]
    image = _joined_image(source, aliases)
    images = [image if source.collection.track else "NULL", image]
    changed = text(f'["{related.field}"]')
    key = _key_text(source, aliases[0])
    return _insert(source, "updated", key, images, changed, joins, conditions)


def _insert(
    source: Source,
    op: str,
    key: str,
    images: list[str],
    changed: str,
    joins: str,
    conditions: list[str],
) -> str:
    values = ", ".join(
        [text(source.collection.stream), "''", text(op), key, *images, changed, _NOW]
    )
    clauses = f" FROM {joins}" if joins else ""
    if conditions:
        clauses += f" WHERE {' AND '.join(conditions)}"
    return (
        f"INSERT INTO {quote(LogEvent._meta.db_table)} "
        "(collection, transaction_id, op, document_id, before, after, changed, created_at) "
        f"SELECT {values}{clauses}"
    )


def _image(source: Source, row: str) -> str:
    """Return the image if the written row is ``row``."""
    aliases, _, _ = joined_tables(source, row, _table)
    return _joined_image(source, aliases)


def _joined_image(source: Source, aliases: list[str]) -> str:
    objects = []
    for index, alias in enumerate(aliases):
        columns = source.columns(index)
        value = _object(alias, columns)
        if index and alias == f"t{index}":  # joined, and perhaps missing
            key = quote(str(source.tables[index]._meta.pk_fields[0].column))
            value = f"CASE WHEN {alias}.{key} IS NULL THEN 'null' ELSE {value} END"
        objects.append(value)
    return f"'[' || {_with_commas(objects)} || ']'"


def _object(row: str, columns: list[str]) -> str:
    """Return a JSON object with the values of columns, as text."""
    if not columns:
        return "'{}'"
    pairs = [
        f"{text(_json_name(column))} || {_value(f'{row}.{quote(column)}')}" for column in columns
    ]
    parts = [pairs[start : start + _CHUNK] for start in range(0, len(pairs), _CHUNK)]
    chunks = _with_commas([f"({_with_commas(part)})" for part in parts])
    return f"('{{' || {chunks} || '}}')"


def _with_commas(expressions: list[str]) -> str:
    """Return the concatenation of texts, with commas between them."""
    return " || ',' || ".join(expressions)


def _json_name(column: str) -> str:
    escaped = column.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}":'


def _value(column: str) -> str:
    """Return the value of a column as JSON, whatever type of value it holds."""
    return (
        f"CASE typeof({column}) WHEN 'text' THEN json_quote({column}) "
        f"WHEN 'integer' THEN {column} "
        f"WHEN 'real' THEN '[\"r\",\"' || printf('%!.20e', {column}) || '\"]' "
        f"WHEN 'blob' THEN '[\"x\",\"' || hex({column}) || '\"]' ELSE 'null' END"
    )


def _key_text(source: Source, row: str) -> str:
    """Return the primary key as text. The reader of the event has the exact document id."""
    columns = [quote(str(f.column)) for f in source.tables[0]._meta.pk_fields]
    parts = [
        f"CASE typeof({row}.{c}) WHEN 'blob' THEN hex({row}.{c}) "
        f"ELSE coalesce(CAST({row}.{c} AS TEXT), '') END"
        for c in columns
    ]
    prefix = f"{text(source.id_prefix)} || " if source.id_prefix else ""
    return prefix + _with_commas(parts)


def _table(model: type[models.Model]) -> str:
    return quote(model._meta.db_table)
