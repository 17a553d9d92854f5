"""Each change is logged once: by triggers, or by the ORM's statements while there are none."""

import pytest
from django.db import connections, transaction

from django_cocobase_realtime.capture.triggers import is_installed
from django_cocobase_realtime.capture.triggers.presence import forget_installed
from django_cocobase_realtime.declarations.capture_mode import captured_by
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.models import LogEvent
from django_cocobase_realtime.testing import capture_events
from tests.app.models import Diner, Item, Place, Post, Restaurant
from tests.support.triggers import (
    execute,
    installed_triggers,
    is_postgres,
    remove_all,
    run_command,
    watching_by_triggers,
)
from tests.support.watching import (
    assert_log_gives_tables,
    forget_logged,
    logged,
    watching,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture(autouse=True)
def _no_triggers():
    yield
    for using in ("default", "other"):
        remove_all(using)


def write(name="a"):
    """Write one row by each kind of statement of the ORM; that is five changes."""
    item = Item.objects.create(name=name)
    item.size = 1
    item.save()
    Item.objects.filter(name=name).update(size=2)
    Item.objects.bulk_update([Item(pk=item.pk, size=3)], ["size"])
    item.delete()


OPERATIONS = ["created", "updated", "updated", "updated", "deleted"]


def operations(collection=None):
    names = [change.op for change in logged(collection)]
    forget_logged()
    return names


def logged_by():
    """Return what wrote the images in the log: triggers, or the ORM."""
    images = LogEvent.objects.values_list("before", "after")
    return {
        "triggers" if image.startswith("[") else "orm" for pair in images for image in pair if image
    }


def test_orm_is_captured_once_before_triggers_are_installed_and_after_they_are_removed():
    with watching(Item, capture="triggers"):
        for _ in range(2):
            write()
            assert logged_by() == {"orm"}
            assert operations() == OPERATIONS
            run_command("install")
            write()
            assert logged_by() == {"triggers"}
            assert operations() == OPERATIONS
            run_command("remove")


def test_raw_sql_is_logged_only_with_triggers():
    with watching(Item, capture="triggers"):
        execute("INSERT INTO app_item (name, size) VALUES ('a', 1)")
        assert operations() == []
        with installed_triggers():
            execute("UPDATE app_item SET size = 2")
            assert operations() == ["updated"]
        execute("DELETE FROM app_item")
        assert operations() == []


def test_log_gives_table_though_triggers_come_and_go():
    with watching(Place, Restaurant, Diner, Post, capture="triggers"):
        diner = Diner.objects.create(name="a")
        post = Post.objects.create(title="a")
        with installed_triggers():
            Diner.objects.update(name="b", stars=2, neon=True)
            post.title = "b"
            post.save()
        diner.name, diner.stars = "c", 3
        diner.save()
        post.tags.create(name="t")
        with installed_triggers():
            post.delete()
            diner.delete()
        assert_log_gives_tables()


def test_triggers_that_are_out_of_date_count_as_missing_until_they_are_replaced():
    with watching_by_triggers(Item):
        write()
        forget_logged()
        with watching(Item, capture="triggers", exclude=["size"], fields=["name"]):
            assert not is_installed(registry.get("item"))
            run_command("install")
            assert is_installed(registry.get("item"))
            write()
            assert operations() == OPERATIONS
        with watching(Item, capture="triggers"):
            run_command("install")
            write()
            assert operations() == OPERATIONS


def test_half_of_the_triggers_counts_as_missing():
    """One of the tables of a row has no triggers; then those of the others are not enough."""
    with watching_by_triggers(Restaurant):
        name = execute(
            "SELECT tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
            "WHERE c.relname = 'app_place' AND tgname LIKE '%%cocobase%%'"
            if is_postgres()
            else "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'app_place'"
        )[0][0]
        execute(f'DROP TRIGGER "{name}"' + (" ON app_place" if is_postgres() else ""))
        forget_installed("default")
        assert not is_installed(registry.get("restaurant"))
        run_command("install")
        assert is_installed(registry.get("restaurant"))
        Restaurant.objects.create(name="a")
        Place.objects.update(name="b")
        assert operations() == ["created", "updated"]


def test_installation_that_is_rolled_back_is_not_relied_on():
    with watching(Item, capture="triggers"):
        with pytest.raises(KeyError), transaction.atomic():
            run_command("install")
            write()
            raise KeyError
        assert not is_installed(registry.get("item"))
        write()
        assert logged_by() == {"orm"}
        assert operations() == OPERATIONS


def test_collections_of_one_model_with_different_modes(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "signals": {"model": "app.Item", "capture": "signals"},
            "triggers": {"model": "app.Item", "capture": "triggers"},
            "volatile": {"model": "app.Item", "durable": False, "capture": "signals"},
        }
    }
    with installed_triggers(), capture_events() as events:
        write()
        assert [e.op for e in events if e.collection == "volatile"] == OPERATIONS
        assert [e.op for e in events if e.collection == "triggers"] == OPERATIONS
        for collection in ("signals", "triggers"):
            assert [change.op for change in logged(collection)] == OPERATIONS
        execute("INSERT INTO app_item (name, size) VALUES ('a', 1)")
        assert [len(logged(name)) for name in ("signals", "triggers")] == [5, 6]


def test_collections_with_different_fields_have_their_own_triggers(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "names": {"model": "app.Item", "capture": "triggers", "fields": ["name"]},
            "sizes": {"model": "app.Item", "capture": "triggers", "fields": ["size"]},
        }
    }
    with installed_triggers():
        Item.objects.create(name="a", size=1)
        images = {change.collection: change.after for change in logged()}
    assert images["names"].keys() == {"id", "name"}
    assert images["sizes"].keys() == {"id", "size"}


def test_setting_gives_the_mode_of_collections_that_name_none(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "items": "app.Item",
            "volatile": {"model": "app.Item", "durable": False},
            "signals": {"model": "app.Item", "capture": "signals"},
        },
        "CAPTURE": "triggers",
    }
    modes = {collection.name: captured_by(collection) for collection in registry}
    assert modes == {"items": "triggers", "volatile": "signals", "signals": "signals"}
    with installed_triggers():
        write()
        assert [change.op for change in logged("items")] == OPERATIONS
        assert [change.op for change in logged("signals")] == OPERATIONS


# other databases


def test_rows_in_another_database_than_the_collections_are_captured_by_the_orm():
    """The triggers and the log are in the collection's database."""
    with watching_by_triggers(Item), capture_events() as events:
        Item.objects.using("other").create(name="a")
        Item.objects.using("other").update(size=1)
        execute("UPDATE app_item SET size = 2", using="other")
        Item.objects.create(name="b")
        assert [event.op for event in events] == ["created", "updated", "created"]
        assert LogEvent.objects.using("other").count() == 0
        assert [change.op for change in logged()] == ["created"]


class ItemsElsewhere:
    """Sends items to the database "other"."""

    def db_for_read(self, model, **hints):
        return "other" if model is Item else None

    db_for_write = db_for_read


def test_collection_in_another_database_than_the_default(settings):
    settings.DATABASE_ROUTERS = [ItemsElsewhere()]
    with watching(Item, capture="triggers"), installed_triggers("other"):
        assert registry.get("item").database == "other"
        write()
        execute("INSERT INTO app_item (name, size) VALUES ('raw', 1)", using="other")
        operations = [change.op for change in logged("item", using="other")]
        assert operations == [*OPERATIONS, "created"]
        assert LogEvent.objects.count() == 0
        Item.objects.using("default").create(name="b")
        assert LogEvent.objects.count() == 0
    assert connections["other"].vendor == "sqlite"
