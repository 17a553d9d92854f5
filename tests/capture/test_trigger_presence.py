"""Triggers that exist log, whatever the settings of a process say; else the ORM's statements."""

import pytest
from django.db import connection, models, transaction

from django_cocobase_realtime.capture.triggers import catalog, presence, synchronize
from django_cocobase_realtime.capture.triggers.catalog import installed
from django_cocobase_realtime.capture.triggers.installation import remove_named
from django_cocobase_realtime.checks import check_database
from django_cocobase_realtime.declarations.dependency_table import hidden_stream
from tests.app.models import Item, Post, Tag
from tests.support.migrating import are_installed, epochs, events, execute, second_connection
from tests.support.watching import summary, watching

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])
POSTGRES = connection.vendor == "postgresql"
INSERT = ["INSERT INTO app_item (name, size) VALUES ('raw', 1)"]


def drop_all():
    remove_named("default", installed("default"))


@pytest.fixture(autouse=True)
def _triggers():
    """Install triggers for items and posts, and drop them afterwards."""
    with watching(Item, Post, capture="triggers"):
        install()
        assert are_installed()
    yield
    drop_all()


def install():
    from django_cocobase_realtime.capture.triggers import by_triggers

    assert synchronize("default", by_triggers("default")) == []


@pytest.fixture
def expired(monkeypatch):
    """Return a function after which the process looks up the triggers again."""

    def expire():
        for known in presence._known.values():
            known.expires_at = 0

    return expire


def test_write_is_logged_once_if_the_settings_say_signals():
    """Another version of the project has migrated, or the next ``migrate`` will drop them."""
    with watching(Item, Post, capture="signals"):
        item = Item.objects.create(name="a")
        Item.objects.update(size=2)
        Post.objects.create(title="p").tags.add(Tag.objects.create(name="t"))
        item.delete()
        assert [op for _, op in events()] == ["created", "updated", "created", "updated", "deleted"]
        assert [m.id for m in check_database(databases=["default"])] == ["cocobase_realtime.W014"]
        synchronize("default", [])
        assert installed("default") == {}
        Item.objects.create(name="b")
        execute(INSERT)
        assert [op for _, op in events()][5:] == ["created"]
        assert check_database(databases=["default"]) == []


def test_write_is_logged_once_by_triggers_of_another_version(settings):
    """They have other columns, and stay until the new version migrates."""
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "item": {"model": "app.Item", "capture": "triggers", "fields": ["name"]},
            "post": {"model": "app.Post", "capture": "triggers", "fields": ["title"]},
        }
    }
    assert not are_installed()
    Item.objects.create(name="a")
    Post.objects.create(title="p").tags.add(Tag.objects.create(name="t"))
    assert [op for _, op in events()] == ["created", "created", "updated"]
    first = epochs()
    install()
    assert are_installed()
    assert epochs() == first  # nothing was missed
    Item.objects.create(name="b")
    assert len(events()) == 4


def test_collections_of_one_table_are_distinguished(settings):
    """One of them has triggers, the other one none."""
    drop_all()
    items = {"model": "app.Item"}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"item": {**items, "capture": "triggers"}}}
    install()
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"item": items, "again": items}}
    item = Item.objects.create(name="a")
    item.delete()
    execute(INSERT)
    assert sorted(events()) == [
        ("again", "created"),
        ("again", "deleted"),
        ("item", "created"),
        ("item", "created"),
        ("item", "deleted"),
    ]


def test_collection_without_log_is_sent_though_there_are_triggers(settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"item": {"model": "app.Item", "durable": False}}}
    from django_cocobase_realtime.capture import recorder

    changes = []
    recorder.uncommitted_observers.append(changes.append)
    try:
        Item.objects.create(name="a")
    finally:
        recorder.uncommitted_observers.remove(changes.append)
    assert [change.op for change in changes] == ["created"]


def drop_elsewhere():
    """Drop the triggers as another process does."""
    statements = [sql for found in installed("default").values() for sql in found.removal]
    with second_connection() as cursor:
        execute(statements, cursor)


def test_missing_triggers_of_dependencies_are_noticed(expired, settings):
    """A new epoch has rights that depend on the table determined again."""
    tags = {"model": "app.Tag", "depends_on": ["app.Item"], "capture": "triggers"}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tags": tags}}
    install()
    Item.objects.create(name="a")
    first = epochs()[hidden_stream("default")]
    drop_elsewhere()
    Item.objects.create(name="missed")
    expired()
    Item.objects.create(name="b")
    assert epochs()[hidden_stream("default")] != first


def test_missing_triggers_are_noticed_and_subscribers_resync(expired):
    with watching(Item, Post, capture="triggers"):
        first = epochs()
        Item.objects.create(name="a")
        drop_elsewhere()
        Item.objects.create(name="missed")
        assert len(events()) == 1
        expired()
        Item.objects.create(name="b")
        assert [op for _, op in events()][-1] == "created"
        changed = epochs()
        assert first.keys() == changed.keys()
        assert all(first[name] != changed[name] for name in first)
        expired()
        Item.objects.create(name="c")
        assert epochs() == changed


def test_subscribers_resync_though_the_transaction_that_notices_is_rolled_back(expired):
    with watching(Item, capture="triggers"):
        Item.objects.create(name="a")
        drop_elsewhere()
        first = epochs()
        expired()
        with pytest.raises(KeyError), transaction.atomic():
            Item.objects.create(name="never")
            raise KeyError
        assert epochs() == first
        expired()
        Item.objects.create(name="b")
        assert epochs() != first


def test_triggers_of_a_rolled_back_transaction_are_not_remembered():
    drop_all()
    with watching(Item, capture="triggers"):
        with pytest.raises(KeyError), transaction.atomic():
            install()
            Item.objects.create(name="never")
            raise KeyError
        Item.objects.create(name="a")
        assert summary() == [("item", "created", None)]


def test_triggers_are_looked_up_once_a_second(monkeypatch):
    lookups = []
    original = catalog.logged_tables
    monkeypatch.setattr(
        catalog, "logged_tables", lambda using: lookups.append(1) or original(using)
    )
    for capture in ("triggers", "signals"):
        with watching(Item, capture=capture):
            presence.forget_installed("default")
            lookups.clear()
            for number in range(20):
                Item.objects.create(name=f"{capture} {number}")
            assert len(lookups) <= 2


def test_broken_transaction_is_not_asked_for_triggers(expired):
    with watching(Item, capture="triggers"), transaction.atomic():
        with pytest.raises(KeyError), transaction.atomic(savepoint=False):
            raise KeyError
        expired()
        with pytest.raises(transaction.TransactionManagementError, match="can't execute queries"):
            Item.objects.create(name="a")
        transaction.set_rollback(True)


def test_renamed_table_keeps_its_triggers():
    """A schema editor renames it outside of ``migrate``; SQLite rewrites the triggers' SQL."""
    with watching(Item, capture="triggers"):
        synchronize("default", [])
        install()
        with connection.schema_editor() as editor:
            editor.alter_db_table(Item, "app_item", "app_item_renamed")
        try:
            execute([INSERT[0].replace("app_item", "app_item_renamed")])
            Item._meta.db_table = "app_item_renamed"
            from django_cocobase_realtime.capture import signals
            from django_cocobase_realtime.declarations.registry import registry

            registry.clear_cache()
            signals.sync()
            presence.forget_installed("default")
            Item.objects.create(name="a")
            assert [op for _, op in events()] == ["created", "created"]
            first = epochs()
            install()
            assert are_installed()
            assert epochs() == first
        finally:
            Item._meta.db_table = "app_item"
            with connection.schema_editor() as editor:
                editor.alter_db_table(Item, "app_item_renamed", "app_item")


if POSTGRES:

    def test_disabled_triggers_are_replaced_by_the_orm(expired):
        with watching(Item, capture="triggers"):
            Item.objects.create(name="a")
            execute(["ALTER TABLE app_item DISABLE TRIGGER USER"])
            first = epochs()
            expired()
            Item.objects.create(name="b")
            assert len(events()) == 2
            assert epochs() != first
            execute(INSERT)
            assert len(events()) == 2
            assert not are_installed()
            install()
            assert are_installed()
            start = len(events())
            execute(["INSERT INTO app_item (name, size) VALUES ('again', 1)"])
            Item.objects.create(name="d")
            assert len(events()) == start + 2

    def test_incomplete_triggers_do_not_count(expired):
        """One of several was dropped by hand: what it does not log, the ORM's capture logs."""
        with watching(Item, capture="triggers"):
            (name,) = set(installed("default")) & {s.name for s in item_sources()}
            execute([f'DROP TRIGGER "0_{name}_insert" ON app_item'])
            presence.forget_installed("default")
            Item.objects.create(name="a")
            assert len(events()) == 1
            install()
            execute(INSERT)
            assert len(events()) == 2

    def item_sources():
        from django_cocobase_realtime.capture.triggers.sources import sources
        from django_cocobase_realtime.declarations.registry import registry

        return sources(registry.get("item"))

else:

    def test_table_that_is_remade_loses_its_triggers(expired):
        """SQLite drops them with the table, if a schema editor is used outside of ``migrate``."""
        with watching(Item, capture="triggers"):
            Item.objects.create(name="a")
            field = models.IntegerField(default=0, db_index=False)
            field.set_attributes_from_name("size")
            field.model = Item
            wider = models.BigIntegerField(default=0, null=True)
            wider.set_attributes_from_name("size")
            wider.model = Item
            with connection.schema_editor() as editor:
                editor.alter_field(Item, Item._meta.get_field("size"), wider)
            try:
                first = epochs()
                expired()
                Item.objects.create(name="b")
                assert [op for _, op in events()][-1] == "created"
                assert epochs() != first
                messages = [message.msg for message in check_database(databases=["default"])]
                assert any("'item'" in message for message in messages)
            finally:
                with connection.schema_editor() as editor:
                    editor.alter_field(Item, wider, Item._meta.get_field("size"))
