"""On PostgreSQL, triggers log what any role writes, whatever its session has set."""

import os

import pytest
from django.db import connection, connections, models

if connection.vendor != "postgresql":
    pytest.skip("SQLite has neither roles nor schemas.", allow_module_level=True)

import psycopg
from django.db.utils import ProgrammingError
from django.test.utils import isolate_apps

from django_cocobase_realtime.capture.triggers import is_installed
from django_cocobase_realtime.capture.triggers.sources import sources
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.models import LogEvent
from tests.app.models import Everything, Item
from tests.support.triggers import (
    created_tables,
    execute,
    watching_by_triggers,
    watching_by_triggers_of,
)
from tests.support.watching import forget_logged, logged

pytestmark = pytest.mark.django_db(transaction=True)
LOG = LogEvent._meta.db_table
# roles belong to the server, which all test processes share
ROLE = f"realtime_writer_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"


@pytest.fixture(autouse=True)
def _items(transactional_db):
    with watching_by_triggers(Item, Everything):
        yield


def functions():
    """Return the names of our functions of the collection's triggers."""
    return sorted(source.name for source in sources(registry.get("item")))


@pytest.fixture
def role():
    """A role that may write to the table of items, and to nothing else."""
    execute(
        f"CREATE ROLE {ROLE}; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON app_item TO {ROLE};"
        f"GRANT USAGE ON SEQUENCE app_item_id_seq TO {ROLE}; CREATE SCHEMA own AUTHORIZATION {ROLE}"
    )
    yield ROLE
    execute(f"RESET ROLE; DROP OWNED BY {ROLE} CASCADE; DROP ROLE {ROLE}")


def operations():
    return [change.op for change in logged("item")]


def write():
    execute("INSERT INTO public.app_item (name, size) VALUES ('a', 1)")
    execute("UPDATE public.app_item SET size = 2")
    execute("DELETE FROM public.app_item")
    execute("INSERT INTO public.app_item (name, size) VALUES ('a', 1)")
    execute("TRUNCATE public.app_item")


WRITTEN = ["created", "updated", "deleted", "created", "deleted"]


# roles


def test_role_without_rights_on_the_log_can_write(role):
    execute(f"SET ROLE {role}")
    write()
    with pytest.raises(ProgrammingError, match="permission denied"):
        execute(f"SELECT * FROM {LOG}")
    with pytest.raises(ProgrammingError, match="permission denied"):
        execute(f"INSERT INTO {LOG} (collection) VALUES ('item')")
    execute("RESET ROLE")
    assert operations() == WRITTEN


def test_no_other_role_may_use_our_functions(role):
    """A role could attach them to a table of its own, and forge events of a collection."""
    (name,) = functions()
    execute(f"SET ROLE {role}")
    execute("CREATE TABLE own.forged (id bigint, name text, size int)")
    for level in ("ROW", "STATEMENT"):
        with pytest.raises(ProgrammingError, match="permission denied for function"):
            execute(
                f"CREATE TRIGGER forge AFTER INSERT ON own.forged FOR EACH {level} "
                f'EXECUTE FUNCTION public."{name}"()'
            )
    with pytest.raises(ProgrammingError):
        execute(f'SELECT public."{name}"()')
    execute("INSERT INTO own.forged VALUES (1, 'x', 1)")
    execute("RESET ROLE")
    assert operations() == []
    assert execute(
        "SELECT has_function_privilege('public', oid, 'EXECUTE') FROM pg_proc WHERE proname = %s",
        [name],
    ) == [(False,)]


def test_functions_stay_closed_when_they_are_installed_again(role):
    (name,) = functions()
    with watching_by_triggers(Item, exclude=["size"]):
        execute(f"SET ROLE {role}")
        execute("CREATE TABLE own.forged (id bigint, name text, size int)")
        with pytest.raises(ProgrammingError, match="permission denied for function"):
            execute(
                "CREATE TRIGGER forge AFTER INSERT ON own.forged FOR EACH ROW "
                f'EXECUTE FUNCTION public."{name}"()'
            )
        execute("RESET ROLE")


def test_objects_of_a_role_do_not_take_the_place_of_ours(role):
    """Tables, functions and operators of other schemas are not found by our functions."""
    execute("GRANT CREATE ON SCHEMA public TO " + role)
    execute(f"SET ROLE {role}")
    execute(f"CREATE TEMPORARY TABLE {LOG} (collection text, after text)")
    execute("CREATE TEMPORARY TABLE new_rows (id bigint)")
    execute("CREATE TEMPORARY TABLE app_item (id bigint)")
    execute(
        "CREATE FUNCTION public.to_jsonb(public.app_item) RETURNS jsonb LANGUAGE sql AS "
        "$$ SELECT '{\"forged\": 1}'::jsonb $$"
    )
    execute(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
        "$$ SELECT timestamptz '1999-01-01 00:00+00' $$"
    )
    execute("SET search_path = own, public, pg_catalog")
    write()
    execute("RESET search_path")
    execute("RESET ROLE")
    assert execute(f"SELECT count(*) FROM pg_temp.{LOG}") == [(0,)]
    execute("DISCARD TEMP")
    assert operations() == WRITTEN
    assert {change.at[:2] for change in logged()} == {"20"}
    assert "forged" not in str([change.after for change in logged()])


# settings of a session


@pytest.mark.parametrize("path", ["own", "pg_temp", "", "own, public", '"$user"'])
def test_search_path_of_the_session(role, path):
    execute(f"SET search_path = {path}" if path else "SET search_path = ''")
    write()
    assert execute("SHOW search_path")[0][0].replace("'", '"') in (path, '""')
    execute("RESET search_path")
    assert operations() == WRITTEN


SETTINGS = {
    "timezone": "Asia/Tokyo",
    "datestyle": "German, DMY",
    "intervalstyle": "iso_8601",
    "bytea_output": "escape",
    "extra_float_digits": "-5",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "lc_monetary": "C",
    "xmlbinary": "hex",
    "row_security": "off",
    "plan_cache_mode": "force_generic_plan",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "client_encoding": "LATIN1",
}


def test_settings_of_the_session_do_not_change_images():
    Everything.objects.create(
        float=0.1 + 0.2,
        date="2026-01-02",
        moment="2026-07-02T10:00:00.000001Z",
        time="23:59:59.999999",
        duration="1 02:03:04.5",
        binary=b"\x00\xff\\x",
        decimal="12345.6789",
        text="a\\b'\"ü",
        json={"a": [1.5, "ü"]},
    )
    names = [
        f'"{field.column}"'
        for field in Everything._meta.concrete_fields
        if field.column not in ("id", "double")
    ]
    for name, value in SETTINGS.items():
        execute(f"SET {name} = '{value}'")
    columns = ", ".join(names)
    execute(f"INSERT INTO app_everything ({columns}) SELECT {columns} FROM app_everything")
    connection.close()
    first, second = logged("everything")
    assert {**first.after, "id": None} == {**second.after, "id": None}
    assert first.after["float"] == 0.1 + 0.2


def test_reader_with_another_time_zone_reads_the_same_images(monkeypatch):
    """Django converts times of such a connection to ``TIME_ZONE``."""

    def reconnect():
        connection.close()
        for name in ("timezone", "timezone_name"):
            connections["default"].__dict__.pop(name, None)

    Everything.objects.create(moment="2026-07-02T10:00:00Z", date="2026-01-02", float=0.1)
    (expected,) = logged("everything")
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "TIME_ZONE", "Asia/Tokyo")
        reconnect()
        execute("SET bytea_output = 'escape'")
        execute("SET extra_float_digits = -5")
        assert execute("SHOW timezone") == [("Asia/Tokyo",)]
        assert logged("everything") == [expected]
    reconnect()


def test_replica_role_is_not_seen():
    """It is documented: PostgreSQL calls no ordinary triggers for a replica."""
    execute("SET session_replication_role = replica")
    execute("INSERT INTO app_item (name, size) VALUES ('a', 1)")
    execute("RESET session_replication_role")
    assert operations() == []


def test_copy_is_logged():
    connection.ensure_connection()
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY app_item (name, size) FROM STDIN") as copy,
    ):
        for n in range(500):
            copy.write_row((str(n), n))
    assert [change.after["size"] for change in logged("item")] == list(range(500))


def test_other_drivers_and_connections_are_logged():
    settings = connection.get_connection_params()
    settings = {k: v for k, v in settings.items() if k in ("dbname", "user", "host", "port")}
    with psycopg.connect(**settings) as other:
        other.execute("INSERT INTO app_item (name, size) VALUES ('a', 1)")
        with other.transaction():
            other.execute("SAVEPOINT s")
            other.execute("UPDATE app_item SET size = 3")
            other.execute("ROLLBACK TO SAVEPOINT s")
        assert operations() == []
    assert operations() == ["created"]


# kinds of tables


@pytest.mark.parametrize("name", ['reports"."order', '"reports"."order"'])
def test_table_in_another_schema(name):
    with isolate_apps("tests.capture_app"):

        class Order(models.Model):
            total = models.IntegerField(default=0)

            class Meta:
                app_label = "capture_app"
                db_table = name

        execute("CREATE SCHEMA reports")
        try:
            with created_tables(Order), watching_by_triggers_of(order=Order):
                assert is_installed(registry.get("order"))
                order = Order.objects.create(total=1)
                execute('UPDATE reports."order" SET total = 2')
                order.delete()
                assert [(c.op, c.after and c.after["total"]) for c in logged("order")] == [
                    ("created", 1),
                    ("updated", 2),
                    ("deleted", None),
                ]
        finally:
            execute("DROP SCHEMA reports CASCADE")


def test_writes_to_partitions_are_logged():
    """Statements on a partition do not call the triggers for statements of the table."""
    execute("ALTER TABLE app_item RENAME TO app_item_kept")
    execute(
        "CREATE TABLE app_item (id bigint, name varchar(50), size integer) "
        "PARTITION BY RANGE (size)"
    )
    try:
        execute("CREATE TABLE low PARTITION OF app_item FOR VALUES FROM (0) TO (10)")
        with watching_by_triggers(Item):
            execute("CREATE TABLE high PARTITION OF app_item FOR VALUES FROM (10) TO (20)")
            execute("INSERT INTO app_item VALUES (1, 'a', 1)")
            execute("INSERT INTO high VALUES (2, 'b', 11)")
            execute("UPDATE low SET size = 2")
            execute("UPDATE app_item SET size = 12 WHERE id = 1")  # to another partition
            execute("TRUNCATE app_item")
            assert is_installed(registry.get("item"))
            changes = [(c.op, (c.after or c.before)["size"]) for c in logged("item")]
            assert changes[:3] == [("created", 1), ("created", 11), ("updated", 2)]
            last = {}
            for change in logged("item"):
                last[change.document_id] = change.after
            assert set(last.values()) == {None}
    finally:
        execute("DROP TABLE app_item")
        execute("ALTER TABLE app_item_kept RENAME TO app_item")


COUNT = """
    CREATE FUNCTION count_size() RETURNS trigger AS $$ BEGIN
        UPDATE app_item SET size = size + 1 WHERE id = NEW.id AND size < 5;
        RETURN NULL;
    END $$ LANGUAGE plpgsql"""


@pytest.mark.parametrize("level", ["ROW", "STATEMENT"])
@pytest.mark.parametrize("name", ["a_first", "z_last"])
def test_changes_by_triggers_of_the_project_are_logged_afterwards(level, name):
    """If another trigger writes the row again, the last event has the last state."""
    execute(COUNT if level == "ROW" else COUNT.replace("id = NEW.id", "true"))
    execute(
        f'CREATE TRIGGER "{name}" AFTER INSERT OR UPDATE ON app_item '
        f"FOR EACH {level} WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION count_size()"
    )
    try:
        # a trigger for each row of the project requires another kind of our triggers
        assert is_installed(registry.get("item")) is (level == "STATEMENT")
        with watching_by_triggers(Item):
            assert is_installed(registry.get("item"))
            Item.objects.create(name="a", size=1)
            sizes = [(change.op, change.after["size"]) for change in logged()]
            assert sizes == [("created", 1), ("updated", 2)]
    finally:
        execute("DROP FUNCTION count_size() CASCADE")


def test_values_that_a_trigger_of_the_project_sets_are_logged():
    execute(
        "CREATE FUNCTION double_size() RETURNS trigger AS $$ BEGIN "
        "NEW.size = NEW.size * 2; RETURN NEW; END $$ LANGUAGE plpgsql;"
        "CREATE TRIGGER double_size BEFORE INSERT ON app_item FOR EACH ROW "
        "EXECUTE FUNCTION double_size()"
    )
    try:
        assert is_installed(registry.get("item"))
        execute("INSERT INTO app_item (name, size) VALUES ('a', 4)")
        assert logged("item")[0].after["size"] == 8
    finally:
        execute("DROP FUNCTION double_size() CASCADE")


def test_disabled_triggers_are_not_installed():
    collection = registry.get("item")
    assert is_installed(collection)
    execute("ALTER TABLE app_item DISABLE TRIGGER USER")
    try:
        assert not is_installed(collection)
    finally:
        execute("ALTER TABLE app_item ENABLE TRIGGER USER")
    assert is_installed(collection)
    forget_logged()
