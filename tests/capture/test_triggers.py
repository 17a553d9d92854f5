"""Installation of triggers by command and by migration operation, and the checks of it."""

import pytest
from django.core.management import CommandError
from django.db import connection

from django_cocobase_realtime.capture.triggers import install, is_installed, remove
from django_cocobase_realtime.checks import check_database, check_settings
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.operations import RealtimeTriggers
from tests.app.models import Item
from tests.support.triggers import execute, is_postgres, run_command
from tests.support.watching import logged, watching

pytestmark = pytest.mark.django_db(transaction=True)
TRIGGERS = {"capture": "triggers"}


@pytest.fixture
def items():
    with watching(Item, **TRIGGERS):
        yield registry.get("item")
        remove(registry.get("item"))


def trigger_names():
    """Return the names of all triggers in the database, besides those of constraints."""
    if is_postgres():
        return execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")
    return execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")


def test_install_status_and_remove(items):
    with pytest.raises(CommandError):
        run_command("status")
    assert [m.id for m in check_database(databases=["default"])] == ["cocobase_realtime.W014"]
    assert check_database() == []
    assert run_command("install") == "item: installed\n"
    names = trigger_names()
    assert names
    assert run_command("install", "item") == "item: installed\n"
    assert trigger_names() == names
    assert run_command("status") == "item: installed\n"
    assert check_database(databases=["default"]) == []
    assert run_command("remove") == "item: removed\n"
    assert trigger_names() == []
    assert run_command("remove") == "item: not there\n"


def test_triggers_of_a_collection_that_changed_are_out_of_date(items):
    run_command("install")
    with watching(Item, fields=["name"], **TRIGGERS):
        with pytest.raises(CommandError):
            run_command("status")
        assert run_command("remove") == "item: removed\n"
    assert trigger_names() == []


def test_install_returns_whether_there_was_anything_to_do(items):
    assert install(items)
    assert not install(items)
    assert remove(items)
    assert not remove(items)


def test_migration_operation_installs_and_removes(items):
    operation = RealtimeTriggers("item")
    with connection.schema_editor() as editor:
        operation.database_forwards("app", editor, None, None)
    assert is_installed(items)
    execute("INSERT INTO app_item (name, size) VALUES ('a', 1)")
    with connection.schema_editor() as editor:
        operation.database_backwards("app", editor, None, None)
    assert not is_installed(items)
    assert [change.op for change in logged()] == ["created"]
    assert "item" in operation.describe()


def test_table_that_does_not_exist_is_reported(items):
    execute("ALTER TABLE app_item RENAME TO app_item_elsewhere")
    try:
        with pytest.raises(LookupError, match="app_item"):
            install(items)
        assert not is_installed(items)
    finally:
        execute("ALTER TABLE app_item_elsewhere RENAME TO app_item")


def test_databases_without_triggers_are_rejected(items, settings, monkeypatch):
    settings.DEBUG = True
    monkeypatch.setattr(type(connection._connections["default"]), "vendor", "oracle")
    assert "cocobase_realtime.E011" in {m.id for m in check_settings()}
    with pytest.raises(ValueError, match="oracle"):
        install(items)
    with pytest.raises(CommandError):
        run_command("install")
    assert not is_installed(items)
    assert not remove(items)
    RealtimeTriggers("item").database_forwards("app", connection.schema_editor(), None, None)


def test_triggers_need_the_log(settings):
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"items": {"model": "app.Item", "durable": False, **TRIGGERS}}
    }
    assert "cocobase_realtime.E013" in {m.id for m in check_settings()}


def test_command_rejects_collections_captured_by_signals(settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"items": "app.Item"}}
    assert "No collection" in run_command("status")
    with pytest.raises(CommandError, match="signals"):
        run_command("install", "items")
    with pytest.raises(CommandError, match="nothing"):
        run_command("install", "nothing")


@pytest.mark.parametrize("capture", ["signals", "triggers"])
def test_changes_by_the_database_are_reported_if_they_are_not_seen(capture):
    class DatabaseOnDelete:
        pass

    class Remote:
        on_delete = DatabaseOnDelete()

    from django_cocobase_realtime.checks.databases import check_unseen_writes

    field = Item._meta.get_field("size")
    assert field.remote_field is None
    with watching(Item, capture=capture):
        field.remote_field = Remote()
        try:
            reported = {message.id for message in check_unseen_writes()}
        finally:
            field.remote_field = None
    assert reported == (
        {"cocobase_realtime.W081", "cocobase_realtime.I082"} if capture == "signals" else set()
    )
