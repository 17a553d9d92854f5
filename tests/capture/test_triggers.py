"""Triggers: what raw SQL writes is logged, once, as capture by signals would have logged it."""

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from hypothesis import HealthCheck, given, settings

from django_cocobase_realtime.capture.triggers import install, is_installed, remove
from django_cocobase_realtime.checks import check_database, check_settings
from django_cocobase_realtime.documents import RowCodec
from django_cocobase_realtime.log.models import LogEvent
from django_cocobase_realtime.operations import RealtimeTriggers
from django_cocobase_realtime.registry import registry
from tests.app.models import Everything, Item, UuidThing
from tests.test_documents import EXAMPLES, values

pytestmark = pytest.mark.django_db(transaction=True)
POSTGRES = connections["default"].vendor == "postgresql"
TRIGGERS = {"capture": "triggers"}
SETTING = {
    "COLLECTIONS": {
        "items": {"model": "app.Item", **TRIGGERS},
        "things": {"model": "app.UuidThing", **TRIGGERS},
        "everything": {"model": "app.Everything", **TRIGGERS},
    }
}


def run(*args):
    out = io.StringIO()
    call_command("realtime_triggers", *args, stdout=out)
    return out.getvalue()


if POSTGRES:

    @pytest.fixture
    def installed(settings):
        settings.COCOBASE_REALTIME = SETTING
        run("install")
        yield
        run("remove")

    def logged():
        rows = LogEvent.objects.order_by("id")
        return [
            (e.op, e.before and json.loads(e.before), e.after and json.loads(e.after)) for e in rows
        ]

    def test_raw_sql(installed):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO app_item (name, size) VALUES ('a', 1) RETURNING id")
            (key,) = cursor.fetchone()
            cursor.execute("UPDATE app_item SET size = 2")
            cursor.execute("DELETE FROM app_item")
        one, two = ({"id": str(key), "name": "a", "size": size} for size in (1, 2))
        assert logged() == [("created", None, one), ("updated", one, two), ("deleted", two, None)]
        events = list(LogEvent.objects.order_by("id"))
        assert len({e.transaction_id for e in events}) == 1
        assert {e.document_id for e in events} == {str(key)}
        assert json.loads(events[1].changed) == ["size"]

    def test_what_django_writes_is_logged_once(installed):
        item = Item.objects.create(name="a")
        item.size = 5
        item.save()
        Item.objects.update(size=6)
        Item.objects.bulk_create([Item(name="b"), Item(name="a")], ignore_conflicts=True)
        item.delete()
        ops = [op for op, _, _ in logged()]
        assert ops == ["created", "updated", "updated", "created", "deleted"]

    def test_a_rollback_takes_its_events_along(installed):
        with pytest.raises(KeyError), transaction.atomic():
            Item.objects.create(name="never")
            raise KeyError
        assert logged() == []

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(values=values)
    def test_the_triggers_image_is_the_codecs(installed, values):
        LogEvent.objects.all().delete()
        instance = Everything.objects.create(**values)
        ((_, _, image),) = logged()
        if isinstance(image["float"], int):  # JSON has one kind of number, Python two
            image["float"] = float(image["float"])
        row = Everything.objects.filter(pk=instance.pk)
        codec = RowCodec(Everything)
        assert image == codec.image(row.values(*codec.attnames).get())

    def test_keys_that_are_uuids(installed):
        thing = UuidThing.objects.create(name="a")
        assert LogEvent.objects.get().document_id == str(thing.pk)

    async def test_a_client_hears_raw_sql(installed, realtime, api_key):
        from asgiref.sync import sync_to_async

        def write():
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO app_item (name, size) VALUES ('raw', 1)")

        async with realtime(token=api_key) as client:
            await client.subscribe("items", filters={"size": 1})
            await sync_to_async(write)()
            event = await client.receive("event", timeout=2)
            assert event["document"]["data"] == {"name": "raw", "size": 1}
            await Item.objects.acreate(name="by Django", size=1)
            event = await client.receive("event", timeout=0.8)  # a bell, not the poll
            assert event["document"]["data"]["name"] == "by Django"

    def test_status(settings):
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"items": SETTING["COLLECTIONS"]["items"]}}
        with pytest.raises(CommandError):
            run("status")
        assert [m.id for m in check_database(databases=["default"])] == ["cocobase_realtime.W014"]
        assert check_database() == []
        assert run("install") == "items: installed\n"
        assert run("install", "items") == "items: installed\n"  # twice is once
        assert run("status") == "items: installed\n"
        assert check_database(databases=["default"]) == []
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {"items": {"model": "app.Item", "not_secret": ["size"], **TRIGGERS}}
        }
        assert run("remove") == "items: removed\n"
        assert run("remove") == "items: not there\n"

    def test_the_migration_operation(settings):
        settings.COCOBASE_REALTIME = SETTING
        operation = RealtimeTriggers("items")
        with connection.schema_editor() as editor:
            operation.database_forwards("app", editor, None, None)
        assert is_installed(registry.get("items"))
        with connection.schema_editor() as editor:
            operation.database_backwards("app", editor, None, None)
        assert not is_installed(registry.get("items"))
        assert "items" in operation.describe()

else:

    def test_other_databases_have_none(settings):
        settings.DEBUG = True
        settings.COCOBASE_REALTIME = SETTING
        assert {m.id for m in check_settings()} == {"cocobase_realtime.E011"}
        collection = registry.get("items")
        with pytest.raises(ValueError, match="PostgreSQL"):
            install(collection)
        assert not is_installed(collection)
        assert not remove(collection)
        with pytest.raises(CommandError):
            run("install")
        with connection.schema_editor() as editor:
            RealtimeTriggers("items").database_forwards("app", editor, None, None)


def test_what_triggers_cannot_do_is_told(settings):
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "restaurants": {"model": "app.Restaurant", **TRIGGERS},
            "items": {"model": "app.Item", "durable": False, **TRIGGERS},
        }
    }
    found = {m.id.removeprefix("cocobase_realtime.") for m in check_settings()}
    assert {"E012", "E013"} <= found


def test_only_collections_by_triggers_are_named(settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"items": "app.Item"}}
    assert "No collection" in run("status")
    with pytest.raises(CommandError, match="signals"):
        run("install", "items")
    with pytest.raises(CommandError, match="nothing"):
        run("install", "nothing")


def test_database_cascades_are_named():
    class DatabaseOnDelete:
        pass

    field = Item._meta.get_field("size")
    assert field.remote_field is None
    from django_cocobase_realtime.checks.collections import check_unseen

    class Remote:
        on_delete = DatabaseOnDelete()

    field.remote_field = Remote()
    try:
        assert "cocobase_realtime.W081" in [m.id for m in check_unseen()]
    finally:
        field.remote_field = None
