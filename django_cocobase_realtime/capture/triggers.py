"""PostgreSQL triggers that write the log, which also capture raw SQL and other programs.

A collection with ``capture = "triggers"`` is logged by the triggers of its table only, so that
no change is logged twice. A trigger normally runs once per statement, after it, and logs all its
rows with one INSERT.
"""

from __future__ import annotations

from hashlib import blake2s

from django.db import connections

from ..declarations.collection import Collection
from ..declarations.registry import registry
from ..models import LogEvent
from .trigger_sql import TRIGGER_PREFIX, document_id, image, quote, text, trigger_name

# triggers by name. PostgreSQL calls them in the order of their names; "0_" comes before most
# triggers of the project, which may write to the table again
_TRUNCATE = {"0_{}_truncate": "BEFORE TRUNCATE ON {} FOR EACH STATEMENT"}
_BY_STATEMENT = {
    "0_{}_insert": "AFTER INSERT ON {} REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT",
    "0_{}_update": "AFTER UPDATE ON {} REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows "
    "FOR EACH STATEMENT",
    "0_{}_delete": "AFTER DELETE ON {} REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT",
    **_TRUNCATE,
}
# Names are resolved as for the connection that installs the triggers, and values are written alike
# whatever the session that changes a row has set.
_SETTINGS = (
    "SET search_path FROM CURRENT SET timezone = 'UTC' SET datestyle = 'ISO, MDY' "
    "SET intervalstyle = 'postgres' SET bytea_output = 'hex' SET extra_float_digits = 1"
)
_BY_ROW = {"0_{}": "AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW", **_TRUNCATE}


def by_triggers() -> list[Collection]:
    """Return the collections with ``capture = "triggers"``."""
    return [collection for collection in registry if collection.capture == "triggers"]


def install(collection: Collection) -> None:
    """Create or replace the triggers of a collection.

    Raises ``ValueError`` if the database is not PostgreSQL.
    """
    connection = connections[collection.database]
    if connection.vendor != "postgresql":
        raise ValueError(
            f"Triggers need PostgreSQL; {collection.name!r} is in {connection.vendor}."
        )
    with connection.cursor() as cursor:
        for statement in install_sql(collection, by_row=_needs_row_triggers(collection)):
            cursor.execute(statement)


def remove(collection: Collection) -> bool:
    """Drop the triggers of a collection; return whether they were installed and up to date."""
    was_installed = is_installed(collection)
    connection = connections[collection.database]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for statement in remove_sql(collection):
                cursor.execute(statement)
    return was_installed


def is_installed(collection: Collection) -> bool:
    """Return whether the triggers exist, are enabled, and are those of this version of the app."""
    connection = connections[collection.database]
    if connection.vendor != "postgresql":
        return False
    by_row = _needs_row_triggers(collection)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid "
            "WHERE t.tgrelid = to_regclass(%s) AND f.proname = %s AND t.tgenabled <> 'D' "
            "AND obj_description(f.oid, 'pg_proc') = %s",
            [_names(collection)[1], trigger_name(collection), _digest(collection, by_row)],
        )
        (count,) = cursor.fetchone()
    return bool(count == len(_BY_ROW if by_row else _BY_STATEMENT))


def install_sql(collection: Collection, *, by_row: bool = False) -> list[str]:
    """Return the SQL statements that install the triggers of a collection, in order.

    With ``by_row`` the triggers run for each row, instead of once per statement. All names are
    quoted, and none of them comes from a client.
    """
    function, table = _names(collection)
    prefix = trigger_name(collection)
    statements = [*remove_sql(collection), _function(collection, by_row)]
    for name, event in (_BY_ROW if by_row else _BY_STATEMENT).items():
        trigger = quote(name.format(prefix))
        statements.append(
            f"CREATE TRIGGER {trigger} {event.format(table)} EXECUTE FUNCTION {function}()"
        )
    statements.append(f"COMMENT ON FUNCTION {function}() IS {text(_digest(collection, by_row))}")
    return statements


def remove_sql(collection: Collection) -> list[str]:
    """Return the SQL statements that remove the triggers, by dropping their function."""
    function, _ = _names(collection)
    return [f"DROP FUNCTION IF EXISTS {function}() CASCADE"]


def _names(collection: Collection) -> tuple[str, str]:
    """Function and table, quoted."""
    return quote(trigger_name(collection)), quote(collection.concrete_model._meta.db_table)


def _needs_row_triggers(collection: Collection) -> bool:
    """Return whether the triggers must run for each row.

    A partitioned table needs it, since programs may write to its partitions directly. So does a
    table with row triggers of the project, which may write to the row again: a trigger that runs
    after the statement would log the outer write after the inner one.
    """
    with connections[collection.database].cursor() as cursor:
        cursor.execute(
            # bits of tgtype: 1 is FOR EACH ROW, 2 is BEFORE, 64 is INSTEAD OF
            "SELECT relkind = 'p' OR EXISTS ("
            "SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid WHERE t.tgrelid = c.oid "
            "AND NOT t.tgisinternal AND t.tgtype & 1 = 1 AND t.tgtype & 66 = 0 "
            "AND NOT starts_with(f.proname, %s)) FROM pg_class c WHERE c.oid = to_regclass(%s)",
            [TRIGGER_PREFIX, _names(collection)[1]],
        )
        row = cursor.fetchone()
    return bool(row and row[0])


def _digest(collection: Collection, by_row: bool) -> str:
    """Return a hash of the function, kept as its comment to recognize an outdated version."""
    return blake2s(_function(collection, by_row).encode(), digest_size=16).hexdigest()


def _function(collection: Collection, by_row: bool) -> str:
    columns = [quote(str(f.column)) for f in collection.concrete_model._meta.pk_fields]
    key = columns[0]
    same_key = " AND ".join(f"o.{column} = n.{column}" for column in columns)
    old_id, new_id = document_id(collection.codec, "o"), document_id(collection.codec, "n")
    log = quote(LogEvent._meta.db_table)
    function, table = _names(collection)
    old, new = image(collection.codec, "o"), image(collection.codec, "n")
    changed_names = (
        f"CASE WHEN b -> {text(name)} IS DISTINCT FROM a -> {text(name)} THEN {text(name)} END"
        for name in collection.codec.fields
    )
    changed = f"array_to_json(array_remove(ARRAY[{', '.join(changed_names)}], NULL))::text"
    olds, news = ("(SELECT OLD.*)", "(SELECT NEW.*)") if by_row else ("old_rows", "new_rows")
    into = (
        f"INSERT INTO {log} "
        "(collection, transaction_id, op, document_id, before, after, changed, created_at) "
        f"SELECT {text(collection.stream)}, pg_current_xact_id()::text"
    )
    insert_deleted = (
        f"{into}, 'deleted', {old_id}, ({old})::text, NULL, NULL, clock_timestamp() FROM"
    )
    return f"""CREATE OR REPLACE FUNCTION {function}() RETURNS trigger AS $body$
BEGIN
    IF TG_OP = 'INSERT' THEN
        {into}, 'created', {new_id}, NULL, ({new})::text, NULL, clock_timestamp()
        FROM {news} AS n;
    ELSIF TG_OP = 'DELETE' THEN
        {insert_deleted} {olds} AS o;
    ELSIF TG_OP = 'TRUNCATE' THEN
        {insert_deleted} {table} AS o;
    ELSE
        -- a row whose key changed is another document; OFFSET keeps images from being made twice
        {into}, CASE WHEN b IS NULL THEN 'created' WHEN a IS NULL THEN 'deleted' ELSE 'updated' END,
            document, b::text, a::text,
            CASE WHEN b IS NOT NULL AND a IS NOT NULL THEN {changed} END, clock_timestamp()
        FROM (
            SELECT coalesce({new_id}, {old_id}) AS document,
                CASE WHEN o.{key} IS NOT NULL THEN {old} END AS b,
                CASE WHEN n.{key} IS NOT NULL THEN {new} END AS a
            FROM {olds} AS o FULL JOIN {news} AS n ON {same_key}
            OFFSET 0
        ) AS both_rows;
    END IF;
    RETURN NULL;
END
$body$ LANGUAGE plpgsql {_SETTINGS}"""  # noqa: S608
