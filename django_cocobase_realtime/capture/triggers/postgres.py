"""PostgreSQL's triggers: a function per table, called once per statement, or for each row.

A trigger for each statement logs all its rows with one INSERT, which costs about a third. For
partitioned tables, and for tables with row triggers of the project, there are triggers for each
row.

An image is ``to_jsonb`` of the row without the columns that are not wanted. The function names no
column of a table that holds complete rows, so that writes go on while a migration changes it. It
runs with the rights of the role that installed it, which may write to the log, and with fixed
settings, since a session's own would change where names lead and how values look.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2s
from typing import Any

from django.db import connections, models

from ...models import LogEvent
from .sources import (
    TRIGGER_PREFIX,
    Installed,
    Source,
    column_of,
    content_type_condition,
    joined_tables,
    quote,
    reference_columns,
    related_field,
    text,
)

_SETTINGS = (
    "SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' "
    "SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres' SET bytea_output = 'hex' "
    "SET extra_float_digits = 1"
)
# triggers by name. PostgreSQL calls them in the order of their names; "0_" comes before most
# triggers of the project, which may write to the table again
_TRUNCATE = {"0_{}_truncate": "BEFORE TRUNCATE ON {} FOR EACH STATEMENT"}
_INSERT = {"0_{}_insert": "AFTER INSERT ON {} REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT"}
_UPDATE = {
    "0_{}_update": "AFTER UPDATE ON {} REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows "
    "FOR EACH STATEMENT"
}
_DELETE = {"0_{}_delete": "AFTER DELETE ON {} REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT"}

PAUSED = "paused"
"""Comment of a function that does nothing for the time being."""
_NOTHING = (
    "CREATE OR REPLACE FUNCTION {}() RETURNS trigger AS "
    f"$body$BEGIN RETURN NULL; END$body$ LANGUAGE plpgsql {_SETTINGS}"
)
# stands for the table that has the trigger, whose name may change
_TABLE = "\x00"


class Names:
    """The quoted names of tables with their schemas, as the connection finds them."""

    def __init__(self, using: str, models_: Iterable[type[models.Model]]) -> None:
        # by name in the models: the quoted name, and whether there must be triggers for each row
        self._tables: dict[str, tuple[str, bool]] = {}
        quote_name = connections[using].ops.quote_name
        wanted = {LogEvent._meta.db_table, *(model._meta.db_table for model in models_)}
        with connections[using].cursor() as cursor:
            cursor.execute(
                # bits of tgtype: 1 is FOR EACH ROW, 2 is BEFORE, 64 is INSTEAD OF
                "SELECT w.name, quote_ident(n.nspname) || '.' || quote_ident(c.relname), "
                "c.relkind = 'p' OR EXISTS ("
                "SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid "
                "WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 1 = 1 "
                "AND t.tgtype & 66 = 0 AND NOT starts_with(f.proname, %s)) "
                "FROM unnest(%s::text[], %s::text[]) AS w(name, quoted) "
                "JOIN pg_class c ON c.oid = to_regclass(w.quoted) "
                "JOIN pg_namespace n ON n.oid = c.relnamespace",
                [TRIGGER_PREFIX, list(wanted), [quote_name(name) for name in wanted]],
            )
            for name, quoted, by_row in cursor.fetchall():
                self._tables[name] = quoted, by_row

    def __contains__(self, model: type[models.Model]) -> bool:
        return model._meta.db_table in self._tables

    def __call__(self, model: type[models.Model]) -> str:
        """Return the name of a model's table. Raises ``LookupError`` if there is none."""
        try:
            return self._tables[model._meta.db_table][0]
        except KeyError:
            raise LookupError(f"There is no table {model._meta.db_table}.") from None

    def needs_row_triggers(self, model: type[models.Model]) -> bool:
        """Return whether the triggers of a model's table must run for each row.

        A partitioned table needs it, since programs may write to its partitions directly. So does
        a table with row triggers of the project, which may write to the row again: a trigger that
        runs after the statement would log the outer write after the inner one.
        """
        return self._tables[model._meta.db_table][1]

    def function(self, source: Source) -> str:
        """Return the name of a source's function, in the schema of the log."""
        schema = self(LogEvent).partition(".")[0]
        return f"{schema}.{quote(source.name)}"


def install_sql(source: Source, names: Names, present: Installed | None) -> list[str]:
    """Return the statements that create or replace the function and triggers of a table.

    They belong into one transaction. All names are quoted, and none of them comes from a client.
    Triggers that are as they should be are not touched, which would take a lock on the table.
    """
    function, table = names.function(source), names(source.model)
    triggers = _triggers(source, names)
    wanted = {(table, quote(name)) for name in triggers}
    existing = present.triggers if present else {}
    statements = [
        _function_sql(source, names),
        f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC",
        *(f"DROP TRIGGER {name} ON {owner}" for owner, name in sorted(existing.keys() - wanted)),
    ]
    # the lock that creates a trigger waits for the transactions that have written without it
    if present is None or not present.tables or not _are_enabled(wanted, existing):
        statements += [
            f"CREATE OR REPLACE TRIGGER {quote(name)} {event.format(table)} "
            f"EXECUTE FUNCTION {function}()"
            for name, event in triggers.items()
        ]
    return [*statements, f"COMMENT ON FUNCTION {function}() IS {text(digest(source, names))}"]


def is_current(source: Source, names: Names, present: Installed | None) -> bool:
    """Return whether what is installed is what a source needs now."""
    needed: list[type[models.Model]] = [LogEvent, *source.used_models]
    if present is None or any(model not in names for model in needed):
        return False
    wanted = {(names(source.model), quote(name)) for name in _triggers(source, names)}
    return (
        present.digest == digest(source, names)
        and present.triggers.keys() == wanted
        and _are_enabled(wanted, present.triggers)
    )


def _are_enabled(wanted: set[tuple[str, str]], existing: dict[tuple[str, str], bool]) -> bool:
    return all(existing.get(trigger) for trigger in wanted)


def digest(source: Source, names: Names) -> str:
    """Return what identifies the function and triggers of a table in their present form.

    It ends with what identifies the columns of the key, and with the number of triggers, by which
    other versions of the app notice that some are missing.
    """
    triggers = _triggers(source, names)
    parts = [_function_sql(source, names), names(source.model), *triggers.values()]
    form, keys = (
        blake2s("\n".join(texts).encode(), digest_size=8).hexdigest()
        for texts in (parts, source.key_columns())
    )
    return f"{form}/{keys}/{len(triggers)}"


def has_other_keys(source: Source, names: Names, present: Installed) -> bool:
    """Return whether what is installed is for other columns of the primary key.

    If one was renamed, updates have been logged as deletions and new rows.
    """
    return present.digest.split("/")[1:2] != digest(source, names).split("/")[1:2]


def installed(using: str) -> dict[str, Installed]:
    """Return what is installed by the names of the sources."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT f.oid, f.proname, coalesce(obj_description(f.oid, 'pg_proc'), ''), "
            "quote_ident(n.nspname) || '.' || quote_ident(f.proname) "
            "FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace "
            # all names that begin with the prefix, by the index of the names
            "WHERE f.proname >= %s AND f.proname < %s AND pg_function_is_visible(f.oid) "
            # other functions of this app return something else
            "AND f.prorettype = 'trigger'::regtype",
            [TRIGGER_PREFIX, TRIGGER_PREFIX[:-1] + chr(ord(TRIGGER_PREFIX[-1]) + 1)],
        )
        functions = cursor.fetchall()
        triggers: dict[int, list[tuple[Any, ...]]] = {oid: [] for oid, *_ in functions}
        if triggers:
            cursor.execute(
                "SELECT t.tgfoid, quote_ident(t.tgname), t.tgenabled IN ('O', 'A'), s.nspname, "
                "c.relname, quote_ident(s.nspname) || '.' || quote_ident(c.relname), "
                "pg_table_is_visible(c.oid) FROM pg_trigger t "
                "JOIN pg_class c ON c.oid = t.tgrelid "
                "JOIN pg_namespace s ON s.oid = c.relnamespace "
                "WHERE t.tgparentid = 0 AND t.tgfoid = ANY(%s::oid[])",
                [list(triggers)],
            )
            for oid, *trigger in cursor.fetchall():
                triggers[oid].append(tuple(trigger))
    return {
        name: Installed(
            comment,
            _logged_table(comment, triggers[oid]),
            [f"DROP FUNCTION IF EXISTS {function}() CASCADE"],
            [_NOTHING.format(function), f"COMMENT ON FUNCTION {function}() IS '{PAUSED}'"],
            {(table, trigger): enabled for trigger, enabled, _, _, table, _ in triggers[oid]},
        )
        for oid, name, comment, function in functions
    }


def _logged_table(comment: str, triggers: list[tuple[Any, ...]]) -> frozenset[str]:
    """Return the names that models may have for the only table with all triggers."""
    count = comment.rpartition("/")[2]
    tables = {(schema, name, visible) for _, on, schema, name, _, visible in triggers if on}
    enabled = sum(on for _, on, *_ in triggers)
    if comment == PAUSED or str(enabled) != count or len(tables) != 1:
        return frozenset()
    ((schema, name, visible),) = tables
    return frozenset({f'{schema}"."{name}', *([name] if visible else ())})


def _triggers(source: Source, names: Names) -> dict[str, str]:
    """Return the events of the triggers, by the names of the triggers."""
    if source.related is None and not source.is_own:
        events = "UPDATE"
        by_statement = _UPDATE
    else:
        events = "INSERT OR UPDATE OR DELETE"
        by_statement = {**_INSERT, **_UPDATE, **_DELETE, **_TRUNCATE}
    row_triggers = {"0_{}": f"AFTER {events} ON {{}} FOR EACH ROW"}
    if by_statement.keys() >= _TRUNCATE.keys():
        row_triggers |= _TRUNCATE
    chosen = row_triggers if names.needs_row_triggers(source.model) else by_statement
    return {name.format(source.name): event for name, event in chosen.items()}


def _function_sql(source: Source, names: Names) -> str:
    body = _related_body if source.related is not None else _body
    by_row = names.needs_row_triggers(source.model)
    return (
        f"CREATE OR REPLACE FUNCTION {names.function(source)}() RETURNS trigger AS $body$\n"
        f"BEGIN\n{body(source, names, by_row)}\n    RETURN NULL;\nEND\n"
        f"$body$ LANGUAGE plpgsql {_SETTINGS}"
    )


def _body(source: Source, names: Names, by_row: bool) -> str:
    """Return the statements that log the rows of a table with rows of the collection."""
    olds, news = ("(SELECT OLD.*)", "(SELECT NEW.*)") if by_row else ("old_rows", "new_rows")
    old, new = _images(source, names, olds), _images(source, names, news)
    before = "o.image" if source.collection.track else "NULL"
    # OFFSET 0 keeps images from being made twice
    update = _insert(
        source,
        names,
        "CASE WHEN o.image IS NULL THEN 'created' WHEN n.image IS NULL THEN 'deleted' "
        "ELSE 'updated' END, coalesce(n.id, o.id, ''), "
        f"CASE WHEN n.image IS NULL THEN o.image ELSE {before} END, n.image, NULL",
        # a row whose key changed is another document
        f"({old} OFFSET 0) AS o FULL JOIN ({new} OFFSET 0) AS n ON o.id = n.id"
        # a save writes all tables of a row: those without a change are left out
        + ("" if source.is_own else " WHERE o.image IS DISTINCT FROM n.image"),
    )
    if not source.is_own:
        return f"    {update}"
    deleted = "'deleted', coalesce(o.id, ''), o.image, NULL, NULL"
    created = _insert(
        source, names, "'created', coalesce(n.id, ''), NULL, n.image, NULL", f"({new}) AS n"
    )
    truncated = _insert(source, names, deleted, f"({_images(source, names, _TABLE)}) AS o")
    return f"""    IF TG_OP = 'INSERT' THEN
        {created}
    ELSIF TG_OP = 'UPDATE' THEN
        {update}
    ELSIF TG_OP = 'DELETE' THEN
        {_insert(source, names, deleted, f"({old}) AS o")}
    ELSE
        {_on_own_table(truncated)}
    END IF;"""


def _related_body(source: Source, names: Names, by_row: bool) -> str:
    """Return the statements that log the rows to which rows of a through table refer."""
    related = source.related
    assert related is not None
    references = [quote(column) for column in reference_columns(source)]
    keys = [quote(key) for key in source.key_columns()]
    columns = ", ".join(dict.fromkeys([*keys, *references]))
    referring = quote(column_of(source.model, related.source))
    olds, news = ("(SELECT OLD.*)", "(SELECT NEW.*)") if by_row else ("old_rows", "new_rows")
    types = [
        f"r.{quote(column_of(source.model, name))} = {value}"
        for name, value in content_type_condition(related, names)
    ]
    target = related_field(source)
    aliases, joins, conditions = joined_tables(source, None, names)
    owner = aliases[source.tables.index(target.model)]
    changed = text(f'["{related.field}"]')

    def log(rows: str) -> str:
        where = " AND ".join(types) or "true"
        condition = " AND ".join(
            [
                *conditions,
                f"{owner}.{quote(str(target.column))} IN "
                f"(SELECT r.{referring} FROM {rows} AS r WHERE {where})",
            ]
        )
        image = _image(source, aliases)
        selected = (
            f"SELECT {_key(source, aliases[0])} AS id, {image} AS image "
            f"FROM {joins} WHERE {condition}"
        )
        before = "n.image" if source.collection.track else "NULL"
        values = f"'updated', coalesce(n.id, ''), {before}, n.image, {changed}"
        return _insert(source, names, values, f"({selected} OFFSET 0) AS n")

    old, new = (f"SELECT {columns} FROM {rows} AS x" for rows in (olds, news))
    reassigned = f"(({old} EXCEPT {new}) UNION ({new} EXCEPT {old}))"
    return f"""    IF TG_OP = 'INSERT' THEN
        {log(news)}
    ELSIF TG_OP = 'UPDATE' THEN
        {log(reassigned)}
    ELSIF TG_OP = 'DELETE' THEN
        {log(olds)}
    ELSE
        {_on_own_table(log(_TABLE))}
    END IF;"""


def _on_own_table(statement: str) -> str:
    """Return a statement that has the table's present name instead of ``_TABLE``."""
    table = " || quote_ident(TG_TABLE_SCHEMA) || '.' || quote_ident(TG_TABLE_NAME) || "
    return f"EXECUTE {table.join(map(text, statement.split(_TABLE)))};"


def _insert(source: Source, names: Names, values: str, rows: str) -> str:
    return (
        f"INSERT INTO {names(LogEvent)} (collection, transaction_id, op, document_id, before, "
        "after, changed, created_at) "
        f"SELECT {text(source.collection.stream)}, pg_current_xact_id()::text, {values}, "
        f"clock_timestamp() FROM {rows};"
    )


def _images(source: Source, names: Names, rows: str) -> str:
    """Return the SELECT of the ids and images of written rows."""
    aliases, joins, conditions = joined_tables(source, "w", names)
    clauses = f"{rows} AS w"
    if source.is_own and joins:
        clauses += joins.removeprefix("(SELECT 1) AS one")
    elif joins:
        clauses += f" CROSS JOIN {joins}"
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    image = _image(source, aliases)
    return f"SELECT {_key(source, aliases[0])} AS id, {image} AS image FROM {clauses}{where}"


def _image(source: Source, aliases: list[str]) -> str:
    objects = []
    for index, alias in enumerate(aliases):
        others = ", ".join(text(column) for column in source.other_columns(index))
        without = f" - ARRAY[{others}]" if others else ""
        objects.append(f"to_jsonb({alias}){without}")
    return f"jsonb_build_array({', '.join(objects)})::text"


def _key(source: Source, row: str) -> str:
    """Return the primary key as text. The reader of the event has the exact document id."""
    keys = [text(str(f.column)) for f in source.tables[0]._meta.pk_fields]
    prefix = f"{text(source.id_prefix)} || " if source.id_prefix else ""
    return prefix + " || ',' || ".join(f"(to_jsonb({row}) ->> {key})" for key in keys)
