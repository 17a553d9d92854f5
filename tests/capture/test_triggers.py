"""Capture by triggers: raw SQL is logged once, as capture by signals would log it."""

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from hypothesis import HealthCheck, given, settings

from django_cocobase_realtime.capture.triggers import install, is_installed, remove
from django_cocobase_realtime.checks import check_database, check_settings
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.declarations.serialization import RowCodec
from django_cocobase_realtime.models import LogEvent
from django_cocobase_realtime.operations import RealtimeTriggers
from tests.app.models import Everything, Item, Patient, UuidThing
from tests.declarations.test_serialization import EXAMPLES, values

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

    def test_fields_with_a_conversion_are_stored_as_by_signals(settings):
        images = []
        for capture in ("signals", "triggers"):
            settings.COCOBASE_REALTIME = {
                "COLLECTIONS": {"patients": {"model": "app.Patient", "capture": capture}}
            }
            if capture == "triggers":
                run("install")
            patient = Patient.objects.create(name="x", diagnosis="flu", packed="ü")
            Patient.objects.create(name="x")
            images += [{**image, "id": ""} for _, _, image in logged()[-2:]]
            assert "enc:" in images[-2]["diagnosis"]
            assert patient.diagnosis == "flu"
        run("remove")
        assert images[:2] == images[2:]

    def test_raw_sql_is_logged(installed):
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

    def test_orm_writes_are_logged_once(installed):
        item = Item.objects.create(name="a")
        item.size = 5
        item.save()
        Item.objects.update(size=6)
        Item.objects.bulk_create([Item(name="b"), Item(name="a")], ignore_conflicts=True)
        item.delete()
        ops = [op for op, _, _ in logged()]
        assert ops == ["created", "updated", "updated", "created", "deleted"]

    def test_rolled_back_changes_are_not_logged(installed):
        with pytest.raises(KeyError), transaction.atomic():
            Item.objects.create(name="never")
            raise KeyError
        assert logged() == []

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(values=values)
    def test_image_of_trigger_equals_image_of_codec(installed, values):
        LogEvent.objects.all().delete()
        instance = Everything.objects.create(**values)
        ((_, _, image),) = logged()
        if isinstance(image["float"], int):  # JSON does not distinguish int and float
            image["float"] = float(image["float"])
        row = Everything.objects.filter(pk=instance.pk)
        codec = RowCodec(Everything)
        assert image == codec.image(row.values(*codec.attnames).get())

    def test_each_row_of_a_statement_is_logged(installed):
        Item.objects.bulk_create(Item(name=str(n), size=n) for n in range(300))
        assert [image["size"] for _, _, image in logged()] == list(range(300))
        Item.objects.filter(size__gte=200).update(size=0)
        updates = list(LogEvent.objects.filter(op="updated"))
        assert len(updates) == 100
        for event in updates:
            before, after = json.loads(event.before), json.loads(event.after)
            assert before["id"] == after["id"] == event.document_id
            assert (before["size"], after["size"]) == (int(before["name"]), 0)
            assert json.loads(event.changed) == ["size"]

    def test_upsert_is_logged_as_created_or_updated(installed):
        one, two = (Item.objects.create(name=name) for name in "ab")
        LogEvent.objects.all().delete()
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO app_item (id, name, size) VALUES (%s, 'a', 7), (%s, 'c', 8) "
                "ON CONFLICT (id) DO UPDATE SET size = excluded.size",
                [one.pk, two.pk + 1],
            )
        assert sorted((op, image["name"], image["size"]) for op, _, image in logged()) == [
            ("created", "c", 8),
            ("updated", "a", 7),
        ]

    def test_changed_primary_key_is_logged_as_deleted_and_created(installed):
        item = Item.objects.create(name="a", size=1)
        LogEvent.objects.all().delete()
        Item.objects.update(id=item.pk + 1)
        one, two = ({"id": str(key), "name": "a", "size": 1} for key in (item.pk, item.pk + 1))
        changes = sorted(logged(), key=lambda change: change[0])
        assert changes == [("created", None, two), ("deleted", one, None)]
        assert {e.document_id for e in LogEvent.objects.all()} == {one["id"], two["id"]}

    def test_truncate_is_logged_as_deletions(installed):
        Item.objects.bulk_create(Item(name=str(n)) for n in range(3))
        LogEvent.objects.all().delete()
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE app_item")
        assert sorted((op, image["name"]) for op, image, _ in logged()) == [
            ("deleted", "0"),
            ("deleted", "1"),
            ("deleted", "2"),
        ]

    COUNT = """
        CREATE FUNCTION count_size() RETURNS trigger AS $$ BEGIN
            UPDATE app_item SET size = size + 1 WHERE id = NEW.id AND size < 5;
            RETURN NULL;
        END $$ LANGUAGE plpgsql"""

    @pytest.mark.parametrize("level", ["ROW", "STATEMENT"])
    def test_changes_by_other_triggers_are_logged_afterwards(settings, level):
        """If another trigger changes the row again, the last event has the last state."""
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"items": SETTING["COLLECTIONS"]["items"]}}
        run("install")
        body = COUNT if level == "ROW" else COUNT.replace("id = NEW.id", "true")
        with connection.cursor() as cursor:
            cursor.execute(body)
            cursor.execute(
                "CREATE TRIGGER a_first AFTER INSERT OR UPDATE ON app_item "
                f"FOR EACH {level} WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION count_size()"
            )
        try:
            # a project's trigger for each row requires another kind of our triggers
            assert is_installed(registry.get("items")) is (level == "STATEMENT")
            run("install")
            assert is_installed(registry.get("items"))
            Item.objects.create(name="a", size=1)
            assert [(op, image["size"]) for op, _, image in logged()] == [
                ("created", 1),
                ("updated", 2),
            ]
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP FUNCTION count_size() CASCADE")
            run("remove")

    def test_writes_to_partitions_are_logged(settings):
        """Statements on a partition do not fire the statement triggers of the table."""
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"items": SETTING["COLLECTIONS"]["items"]}}
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE app_item RENAME TO app_item_kept")
            cursor.execute(
                "CREATE TABLE app_item (id bigint, name varchar(50), size integer) "
                "PARTITION BY RANGE (size)"
            )
            cursor.execute("CREATE TABLE low PARTITION OF app_item FOR VALUES FROM (0) TO (10)")
            try:
                run("install")
                cursor.execute(
                    "CREATE TABLE high PARTITION OF app_item FOR VALUES FROM (10) TO (20)"
                )
                cursor.execute("INSERT INTO app_item VALUES (1, 'a', 1)")
                cursor.execute("INSERT INTO high VALUES (2, 'b', 11)")
                cursor.execute("UPDATE low SET size = 2")
                assert is_installed(registry.get("items"))
                assert [(op, image["size"]) for op, _, image in logged()] == [
                    ("created", 1),
                    ("created", 11),
                    ("updated", 2),
                ]
                run("remove")
            finally:
                cursor.execute("DROP TABLE app_item")
                cursor.execute("ALTER TABLE app_item_kept RENAME TO app_item")

    def test_uuid_primary_key_is_logged(installed):
        thing = UuidThing.objects.create(name="a")
        assert LogEvent.objects.get().document_id == str(thing.pk)

    async def test_raw_sql_is_sent_to_clients(installed, realtime, api_key):
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
            event = await client.receive("event", timeout=0.8)  # by notification, not by polling
            assert event["document"]["data"]["name"] == "by Django"

    def test_install_status_and_remove(settings):
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"items": SETTING["COLLECTIONS"]["items"]}}
        with pytest.raises(CommandError):
            run("status")
        assert [m.id for m in check_database(databases=["default"])] == ["cocobase_realtime.W014"]
        assert check_database() == []
        assert run("install") == "items: installed\n"
        assert run("install", "items") == "items: installed\n"  # installing again changes nothing
        assert run("status") == "items: installed\n"
        assert check_database(databases=["default"]) == []
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {"items": {"model": "app.Item", "not_secret": ["size"], **TRIGGERS}}
        }
        assert run("remove") == "items: removed\n"
        assert run("remove") == "items: not there\n"

    def test_migration_operation_installs_and_removes(settings):
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

    def test_triggers_on_other_databases_are_rejected(settings):
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


def test_unsupported_trigger_options_are_reported(settings):
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "restaurants": {"model": "app.Restaurant", **TRIGGERS},
            "items": {"model": "app.Item", "durable": False, **TRIGGERS},
        }
    }
    reported = {m.id.removeprefix("cocobase_realtime.") for m in check_settings()}
    assert {"E012", "E013"} <= reported


def test_command_rejects_collections_captured_by_signals(settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"items": "app.Item"}}
    assert "No collection" in run("status")
    with pytest.raises(CommandError, match="signals"):
        run("install", "items")
    with pytest.raises(CommandError, match="nothing"):
        run("install", "nothing")


def test_database_level_cascades_are_reported():
    class DatabaseOnDelete:
        pass

    field = Item._meta.get_field("size")
    assert field.remote_field is None
    from django_cocobase_realtime.checks.databases import check_unseen_writes

    class Remote:
        on_delete = DatabaseOnDelete()

    field.remote_field = Remote()
    try:
        assert "cocobase_realtime.W081" in [m.id for m in check_unseen_writes()]
    finally:
        field.remote_field = None
