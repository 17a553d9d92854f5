"""``migrate``, ``flush``, test databases and the command keep triggers as they should be."""

import io
import json
import os
import subprocess
import sys
import uuid

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import OperationWriter
from django.test.utils import CaptureQueriesContext

from django_cocobase_realtime.capture.triggers import is_installed
from django_cocobase_realtime.capture.triggers.catalog import installed
from django_cocobase_realtime.capture.triggers.installation import remove_named
from django_cocobase_realtime.capture.triggers.migrations import after_migrate, before_migrate
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.operations import RealtimeTriggers
from tests.app.models import Item, Post, Restaurant
from tests.support.migrating import are_installed, epochs, events, execute
from tests.support.watching import watching

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])
POSTGRES = connection.vendor == "postgresql"
INSERT = ["INSERT INTO app_item (name, size) VALUES ('raw', 1)"]


@pytest.fixture(autouse=True)
def _drop_triggers():
    yield
    for using in connections:
        remove_named(using, installed(using))


@pytest.fixture
def watched():
    with watching(Item, Post, Restaurant, capture="triggers"):
        yield


def migrate(*arguments, **options):
    call_command("migrate", *arguments, verbosity=0, **options)


def run(*arguments):
    out = io.StringIO()
    call_command("realtime_triggers", *arguments, stdout=out)
    return out.getvalue()


# migrate


def test_migrate_installs_without_migrations_to_apply(watched):
    first = epochs()
    migrate()
    assert are_installed()
    assert epochs() != first
    execute(INSERT)
    assert events() == [("item", "created")]


def test_migrate_with_nothing_to_do_costs_few_queries(watched):
    migrate()
    first = epochs()
    with CaptureQueriesContext(connection) as queries:
        before_migrate(using="default", plan=[])
        after_migrate(using="default", plan=[])
    assert 1 <= len(queries) <= 6
    migrate()
    assert epochs() == first


def test_queries_do_not_depend_on_the_number_of_collections(settings):
    collections = {f"c{n}": {"model": "app.Item", "capture": "triggers"} for n in range(30)}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": collections}
    migrate()
    assert are_installed()
    with CaptureQueriesContext(connection) as queries:
        before_migrate(using="default", plan=[])
        after_migrate(using="default", plan=[])
    assert len(queries) <= 6
    execute(INSERT)
    assert len(events()) == 30


def test_migrate_without_triggers_costs_few_queries():
    with CaptureQueriesContext(connection) as queries:
        before_migrate(using="default", plan=[])
        after_migrate(using="default", plan=[])
    assert len(queries) <= 2


def test_flush_keeps_triggers_without_a_query(watched):
    migrate()
    with CaptureQueriesContext(connection) as queries:
        before_migrate(using="default")
        after_migrate(using="default")
    assert len(queries) == 0
    first = installed("default")
    call_command("flush", verbosity=0, interactive=False)
    assert installed("default") == first
    execute(INSERT)
    assert events()[-1] == ("item", "created")


def test_triggers_of_removed_collections_are_dropped(watched):
    migrate()
    count = len(installed("default"))
    with watching(Item, capture="triggers"):
        first = epochs()
        migrate()
        assert 0 < len(installed("default")) < count
        assert epochs() == first
        assert are_installed()
    with watching(Item, capture="signals"):
        migrate()
        assert installed("default") == {}


class ItemsElsewhere:
    """Keeps items in another database."""

    def db_for_read(self, model, **hints):
        return "other" if model._meta.label == "app.Item" else None

    db_for_write = db_for_read


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_databases_are_migrated_separately(settings):
    settings.DATABASE_ROUTERS = [f"{__name__}.ItemsElsewhere"]
    with watching(Item, Post, capture="triggers"):
        migrate()
        assert len(installed("default")) == 2  # the table of posts, and that of their tags
        assert installed("other") == {}
        migrate(database="other")
        assert len(installed("other")) == 1
        assert are_installed()
        run("remove", "--database", "other")
        assert (len(installed("default")), len(installed("other"))) == (2, 0)
        assert run("install", "--database", "other") == "item: installed\n"
        with connections["other"].cursor() as cursor:
            execute(INSERT, cursor)
        assert run("status") == "item: installed\npost: installed\n"


def test_tables_that_are_missing_are_left_out(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "item": {"model": "app.Item", "capture": "triggers"},
            "post": {"model": "app.Post", "capture": "triggers"},
        }
    }
    with connection.schema_editor() as editor:
        editor.alter_db_table(Item, "app_item", "app_item_hidden")
    try:
        migrate()
        assert not is_installed(registry.get("item"))
        assert is_installed(registry.get("post"))
        with pytest.raises(CommandError, match="item: there is no table"):
            run("install")
        assert is_installed(registry.get("post"))
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(Item, "app_item_hidden", "app_item")


def test_read_only_database_does_not_stop_migrate(watched, caplog):
    with watching():
        migrate()
    read_only, writable = (
        ("SET default_transaction_read_only = on", "SET default_transaction_read_only = off")
        if POSTGRES
        else ("PRAGMA query_only = 1", "PRAGMA query_only = 0")
    )
    execute([read_only])
    try:
        migrate()
    finally:
        execute([writable])
    assert installed("default") == {}
    assert "could not be installed" in caplog.text
    migrate()
    assert are_installed()


# databases that are made of others


FRESH = """
import django
from django.core.management import call_command
from django.db import connection
django.setup()
call_command("migrate", verbosity=0)
call_command("realtime_triggers", "status")
with connection.cursor() as cursor:
    cursor.execute("INSERT INTO app_item (name, size) VALUES ('raw', 1)")
    cursor.execute("SELECT collection, op FROM cocobase_realtime_logevent")
    print(cursor.fetchall())
"""
# what the parallel test runner of Django does for each of its processes
CLONE = """
import django
from django.core.management import call_command
from django.db import connection
django.setup()
call_command("migrate", verbosity=0)
connection.close()  # PostgreSQL copies no database that is in use
connection.creation.clone_test_db("77", verbosity=0)
copy = connection.copy()
copy.settings_dict = {
    **connection.settings_dict,
    **connection.creation.get_test_db_clone_settings("77"),
}
with copy.cursor() as cursor:
    cursor.execute("INSERT INTO app_item (name, size) VALUES ('raw', 1)")
    cursor.execute("SELECT collection, op FROM cocobase_realtime_logevent")
    print(cursor.fetchall())
copy.close()
"""


@pytest.fixture
def run_in_new_database(tmp_path):
    """Return a function that runs a script in a database without tables, and returns its output."""
    name = f"fresh_{uuid.uuid4().hex[:8]}" if POSTGRES else str(tmp_path / "db.sqlite3")
    entry = {k: v for k, v in connection.settings_dict.items() if k in ("ENGINE", "HOST", "USER")}
    databases = {"default": {**entry, "PORT": str(connection.settings_dict["PORT"]), "NAME": name}}
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "REALTIME_TEST_DATABASES": json.dumps(databases),
        "REALTIME_TEST_SETTINGS": json.dumps({"CAPTURE": "triggers"}),
    }
    if POSTGRES:
        execute([f"CREATE DATABASE {name}"])

    def run_script(script):
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stderr == ""
        return result.stdout

    return run_script


def test_first_migrate_of_a_project(run_in_new_database):
    """All tables, and the log, are created by the same command as the triggers."""
    output = run_in_new_database(FRESH)
    assert "items: installed\n" in output
    assert "restaurants: installed\n" in output
    assert output.endswith("[('items', 'created')]\n")


def test_clone_of_a_test_database_has_the_triggers(run_in_new_database):
    assert run_in_new_database(CLONE) == "[('items', 'created')]\n"


# the command


def test_command_reports_what_it_does(watched):
    with pytest.raises(CommandError, match="realtime_triggers install") as error:
        run("status")
    assert error.value.returncode == 1
    assert run("install", "item") == "item: installed\n"
    assert not is_installed(registry.get("post"))
    assert run("status", "item") == "item: installed\n"
    assert run("install") == "item: installed\npost: installed\nrestaurant: installed\n"
    assert run("status") == "item: installed\npost: installed\nrestaurant: installed\n"
    assert run("remove", "post") == "post: removed\n"
    assert run("remove", "post") == "post: not there\n"
    assert run("remove") == "item: removed\npost: not there\nrestaurant: removed\n"
    assert installed("default") == {}


def test_command_handles_triggers_that_are_not_needed(watched, capsys):
    run("install")
    with watching(Item, capture="signals"):
        with pytest.raises(CommandError):
            call_command("realtime_triggers", "status")
        assert "other collections in default: installed, but not needed" in capsys.readouterr().out
        with pytest.raises(CommandError):
            call_command("realtime_triggers", "status", "item")
        assert capsys.readouterr().out == "item: installed, but captured by signals\n"
        assert run("remove", "item") == "item: removed\n"
        assert "other collections in default: removed" in run("remove")
        assert installed("default") == {}
    run("install")
    with watching(Post, capture="triggers"):
        assert run("install") == "post: installed\n"
        assert len(installed("default")) == 2


def test_command_rejects_names_and_databases_that_do_not_exist(watched):
    for action in ("install", "remove", "status"):
        with pytest.raises(CommandError, match="no collection 'nothing'"):
            run(action, "item", "nothing")
        with pytest.raises(CommandError, match="no database 'nowhere'"):
            run(action, "--database", "nowhere")
        with pytest.raises(CommandError, match="Not in database 'other': item"):
            run(action, "item", "--database", "other")
    assert installed("default") == {}
    with (
        watching(Item, Post, capture="signals"),
        pytest.raises(CommandError, match="'item' is captured by signals"),
    ):
        run("install", "item")


def test_installing_by_the_command_makes_subscribers_resync(watched):
    first = epochs()
    run("install")
    second = epochs()
    assert all(first[name] != second[name] for name in first)
    run("install")
    assert epochs() == second


# the migration operation


def apply(operation, direction, **options):
    state = ProjectState()
    with connection.schema_editor(**options) as editor:
        getattr(operation, f"database_{direction}")("app", editor, state, state)
    return getattr(editor, "collected_sql", None)


def test_operation_installs_and_removes(watched):
    operation = RealtimeTriggers("post")
    apply(operation, "forwards")
    assert is_installed(registry.get("post"))
    assert not is_installed(registry.get("item"))
    apply(operation, "backwards")
    assert installed("default") == {}
    state = ProjectState.from_apps(apps)
    unchanged = set(state.models)
    operation.state_forwards("app", state)
    assert set(state.models) == unchanged
    assert "post" in operation.describe()
    writer = OperationWriter(operation, indentation=0)
    text, imports = writer.serialize()
    assert "RealtimeTriggers(" in text
    assert imports == {"import django_cocobase_realtime.operations"}


def test_operation_prints_the_statements_that_it_executes(watched):
    operation = RealtimeTriggers("item")
    create = apply(operation, "forwards", collect_sql=True)
    assert installed("default") == {}
    execute(create)
    assert is_installed(registry.get("item"))
    drop = apply(operation, "backwards", collect_sql=True)
    assert is_installed(registry.get("item"))
    execute(drop)
    assert installed("default") == {}


def test_operation_does_nothing_in_another_database_or_while_migrate_runs(watched):
    operation = RealtimeTriggers("item")
    with connections["other"].schema_editor() as editor:
        operation.database_forwards("app", editor, None, None)
    assert installed("other") == {}
    plan = [(type("Migration", (), {"app_label": "app"}), False)]
    before_migrate(using="default", plan=plan)
    apply(operation, "forwards")
    assert installed("default") == {}  # a later migration may change the table
    after_migrate(using="default", plan=plan)
    assert are_installed()
    before_migrate(using="default", plan=plan)
    apply(operation, "backwards")
    after_migrate(using="default", plan=plan)
    assert are_installed()
