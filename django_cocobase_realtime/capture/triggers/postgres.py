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
from dataclasses import dataclass
from hashlib import blake2s

from django.db import connections, models

from ...models import LogEvent
from .sources import (
    TRIGGER_PREFIX,
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


@dataclass(frozen=True)
class Installed:
    """A function of triggers that exists."""

    # identifies its form, see `digest`
    digest: str
    # its quoted name, with the schema
    function: str
    # the quoted name of the table of each enabled trigger that calls it
    tables: list[str]


class Names:
    """The quoted names of tables with their schemas, as the connection finds them."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._known: dict[type[models.Model], str] = {}

    def __call__(self, model: type[models.Model]) -> str:
        """Return the name of a model's table. Raises ``LookupError`` if there is none."""
        if model not in self._known:
            connection = connections[self._using]
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT quote_ident(n.nspname), quote_ident(c.relname) FROM pg_class c "
                    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)",
                    [connection.ops.quote_name(model._meta.db_table)],
                )
                row = cursor.fetchone()
            if row is None:
                raise LookupError(f"There is no table {model._meta.db_table}.")
            self._known[model] = ".".join(row)
        return self._known[model]

    def function(self, source: Source) -> str:
        """Return the name of a source's function, in the schema of the log."""
        schema = self(LogEvent).partition(".")[0]
        return f"{schema}.{quote(source.name)}"


def install_sql(source: Source, names: Names, *, by_row: bool) -> list[str]:
    """Return the statements that create or replace the function and triggers of a table.

    They belong into one transaction. All names are quoted, and none of them comes from a client.
    """
    function, table = names.function(source), names(source.model)
    triggers = _triggers(source, by_row)
    unwanted = _triggers(source, not by_row).keys() - triggers.keys()
    return [
        _function_sql(source, names, by_row),
        f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC",
        *(f"DROP TRIGGER IF EXISTS {quote(name)} ON {table}" for name in sorted(unwanted)),
        *(
            f"CREATE OR REPLACE TRIGGER {quote(name)} {event.format(table)} "
            f"EXECUTE FUNCTION {function}()"
            for name, event in triggers.items()
        ),
        f"COMMENT ON FUNCTION {function}() IS {text(digest(source, names, by_row=by_row))}",
    ]


def remove_sql(functions: Iterable[str]) -> list[str]:
    """Return the statements that drop functions, whose names are quoted, and their triggers."""
    return [f"DROP FUNCTION IF EXISTS {function}() CASCADE" for function in functions]


def digest(source: Source, names: Names, *, by_row: bool) -> str:
    """Return what identifies the function and triggers of a table in their present form."""
    parts = [_function_sql(source, names, by_row), names(source.model)]
    parts += _triggers(source, by_row).values()
    return blake2s("\n".join(parts).encode(), digest_size=16).hexdigest()


def installed(using: str) -> dict[str, Installed]:
    """Return the installed functions and their triggers, by name of the function."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT f.proname, coalesce(obj_description(f.oid, 'pg_proc'), ''), "
            "quote_ident(n.nspname) || '.' || quote_ident(f.proname), ARRAY("
            "SELECT quote_ident(s.nspname) || '.' || quote_ident(c.relname) FROM pg_trigger t "
            "JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace s ON s.oid = c.relnamespace "
            "WHERE t.tgfoid = f.oid AND t.tgparentid = 0 AND t.tgenabled IN ('O', 'A')) "
            "FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace "
            "WHERE starts_with(f.proname, %s)",
            [TRIGGER_PREFIX],
        )
        return {name: Installed(*values) for name, *values in cursor.fetchall()}


def trigger_count(source: Source, *, by_row: bool) -> int:
    """Return how many triggers a table needs."""
    return len(_triggers(source, by_row))


def needs_row_triggers(source: Source, using: str, names: Names) -> bool:
    """Return whether the triggers must run for each row.

    A partitioned table needs it, since programs may write to its partitions directly. So does a
    table with row triggers of the project, which may write to the row again: a trigger that runs
    after the statement would log the outer write after the inner one.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(
            # bits of tgtype: 1 is FOR EACH ROW, 2 is BEFORE, 64 is INSTEAD OF
            "SELECT relkind = 'p' OR EXISTS ("
            "SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid WHERE t.tgrelid = c.oid "
            "AND NOT t.tgisinternal AND t.tgtype & 1 = 1 AND t.tgtype & 66 = 0 "
            "AND NOT starts_with(f.proname, %s)) FROM pg_class c WHERE c.oid = to_regclass(%s)",
            [TRIGGER_PREFIX, names(source.model)],
        )
        row = cursor.fetchone()
    return bool(row and row[0])


def _triggers(source: Source, by_row: bool) -> dict[str, str]:
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
    chosen = row_triggers if by_row else by_statement
    return {name.format(source.name): event for name, event in chosen.items()}


def _function_sql(source: Source, names: Names, by_row: bool) -> str:
    body = _related_body if source.related is not None else _body
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
    whole = _images(source, names, names(source.model))
    return f"""    IF TG_OP = 'INSERT' THEN
        {created}
    ELSIF TG_OP = 'UPDATE' THEN
        {update}
    ELSIF TG_OP = 'DELETE' THEN
        {_insert(source, names, deleted, f"({old}) AS o")}
    ELSE
        {_insert(source, names, deleted, f"({whole}) AS o")}
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
        {log(names(source.model))}
    END IF;"""


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
    return " || ',' || ".join(f"(to_jsonb({row}) ->> {key})" for key in keys)
