"""Values in the log that cannot be read today do not keep the reader from what follows.

Triggers log what a column holds. A program may write values that Python or a field of the project
refuses, and the column's type may have changed since.
"""

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, models
from django.test import override_settings
from django.test.utils import isolate_apps

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.log.reader import fetch_new
from django_cocobase_realtime.models import LogEvent
from tests.app.models import Everything, Post
from tests.support.log import read_all
from tests.support.triggers import (
    created_tables,
    execute,
    installed_triggers,
    is_postgres,
    watching_by_triggers,
)
from tests.support.watching import forget_logged

pytestmark = pytest.mark.django_db(transaction=True)
DEEP = "[" * 5000 + "]" * 5000
POSTGRES_VALUES = {
    "infinite date": ("date", "'infinity'"),
    "infinite time": ("moment", "'-infinity'"),
    "date before Christ": ("date", "'0044-03-15 BC'"),
    "time after the year 9999": ("moment", "'10000-01-01'"),
    "not a number": ("decimal", "'NaN'"),
    "long interval": ("duration", "'100000000 years'"),
    "deep JSON": ("json", f"'{DEEP}'"),
}
SQLITE_VALUES = {
    "bytes that are not UTF-8": ("text", "CAST(x'61ff62' AS TEXT)"),
    "text in a number": ("integer", "'x'"),
    "bytes in a number": ("integer", "x'ff00'"),
    "number in bytes": ("binary", "1000000000000"),
    "impossible date": ("date", "'2026-13-45'"),
    "number as a date": ("date", "20260102.5"),
    "decimal beyond its digits": ("decimal", "1e300"),
    "infinity": ("decimal", "1e999"),
    "not JSON": ("json", "'{'"),
    "bytes as a UUID": ("uuid", "x'00'"),
    "text as a UUID": ("uuid", "'zz'"),
    "text as a duration": ("duration", "'x'"),
    "long duration": ("duration", "9223372036854775807"),
    "number as text": ("text", "5"),
}
VALUES = POSTGRES_VALUES if is_postgres() else SQLITE_VALUES
without_checks = (
    "PRAGMA ignore_check_constraints = ON",
    "PRAGMA ignore_check_constraints = OFF",
)


def write(column, value):
    if not is_postgres():
        execute(without_checks[0])
    execute(f'UPDATE app_everything SET "{column}" = {value}')
    if not is_postgres():
        execute(without_checks[1])


@pytest.mark.parametrize("value", VALUES)
def test_events_after_an_unreadable_value_are_read(value):
    with watching_by_triggers(Everything):
        Everything.objects.create(char="a")
        write(*VALUES[value])
        execute("DELETE FROM app_everything")
        events = read_all("everything")
        assert [event.op for event in events] == ["created", "updated", "deleted"]
        assert len({event.document_id for event in events}) == 1


@pytest.mark.parametrize("value", VALUES)
async def test_clients_receive_what_follows_an_unreadable_value(value, realtime, api_key, settings):
    collection = {"model": "app.Everything", "capture": "triggers", "fields": ["char", "slug"]}
    collection["permission_fields"] = [VALUES[value][0]]
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"everything": collection},
        "LOG": {"POLL": 0.2},
    }
    triggers = installed_triggers()
    await sync_to_async(triggers.__enter__)()
    try:
        async with realtime(token=api_key) as client:
            cursor = (await client.subscribe("everything"))["cursor"]
            await Everything.objects.acreate(char="a")
            assert (await client.receive("event"))["event"] == "created"
            await sync_to_async(write)(*VALUES[value])
            updated = await client.receive("event")
            data = updated["document"]["data"]
            # JSON with so many levels hides the whole row
            assert (updated["event"], data.get("char")) == (
                "updated",
                None if value == "deep JSON" else "a",
            )
            await Everything.objects.acreate(char="b", slug="next")
            assert (await client.receive("event"))["document"]["data"]["slug"] == "next"
        async with realtime(token=api_key) as client:  # from the log, after they were numbered
            await client.subscribe("everything", since=cursor)
            received = [await client.receive("event") for _ in range(3)]
            assert [event["event"] for event in received] == ["created", "updated", "created"]
    finally:
        await sync_to_async(triggers.__exit__)(None, None, None)


# columns that changed


def versions(value):
    """Return two versions of a model, with a field before and after a migration."""
    models_of_table = []
    for field in value:
        options = {"app_label": "capture_app", "db_table": "capture_app_versioned"}
        attributes = {"name": models.CharField(max_length=20, default="a")}
        if field is not None:
            attributes["value"] = field.clone()
        attributes |= {"Meta": type("Meta", (), options), "__module__": __name__}
        with isolate_apps("tests.capture_app"):
            models_of_table.append(type("Versioned", (models.Model,), attributes))
    return models_of_table


def watch(model):
    return override_settings(
        COCOBASE_REALTIME={"COLLECTIONS": {"versioned": {"model": model, "capture": "triggers"}}}
    )


CHANGES = {
    "number to UUID": (models.IntegerField(default=5), models.UUIDField(null=True)),
    "text to number": (models.CharField(max_length=9, default="x"), models.IntegerField(null=True)),
    "text to time": (models.TextField(default="soon"), models.DateTimeField(null=True)),
    "JSON to truth": (models.JSONField(default=list), models.BooleanField(null=True)),
    "number to bytes": (models.FloatField(default=1.5), models.BinaryField(null=True)),
    "added": (None, models.IntegerField(null=True)),
    "removed": (models.IntegerField(default=5), None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_events_from_before_a_column_changed_are_read(change):
    old, new = versions(CHANGES[change])
    with created_tables(new):
        with connection.schema_editor() as editor:
            editor.delete_model(new)
            editor.create_model(old)
        with watch(old), installed_triggers():
            old.objects.create()
            old.objects.update(name="b")
            old.objects.create(name="gone").delete()
        with connection.schema_editor() as editor:
            editor.delete_model(old)
            editor.create_model(new)
        with watch(new), installed_triggers():
            new.objects.create(name="c")
            events = read_all("versioned")
            collection = registry.get("versioned")
            assert [event.op for event in events] == [
                "created",
                "updated",
                "created",
                "deleted",
                "created",
            ]
            for event in events:
                image = event.after or event.before
                assert not image or image["id"] == event.document_id
                assert set(image) <= set(collection.codec.fields)
            assert events[-1].after["name"] == "c"
            assert collection.codec.is_complete(events[-1].after)


@pytest.mark.parametrize("change", ["number to UUID", "added", "removed"])
async def test_clients_are_sent_rows_as_they_are_now_after_a_column_changed(
    change, realtime, api_key
):
    """An image that lacks a field is judged by the row."""
    old, new = versions(CHANGES[change])
    tables = created_tables(new)
    await sync_to_async(tables.__enter__)()

    def log_with_the_old_column():
        with connection.schema_editor() as editor:
            editor.delete_model(new)
            editor.create_model(old)
        with watch(old), installed_triggers():
            old.objects.create(name="a")
            old.objects.update(name="b")
        with connection.schema_editor() as editor:
            editor.delete_model(old)
            editor.create_model(new)
        new.objects.create(name="now")

    try:
        with watch(new):
            async with realtime(token=api_key) as client:
                cursor = (await client.subscribe("versioned"))["cursor"]
        await sync_to_async(log_with_the_old_column)()
        with watch(new):
            async with realtime(token=api_key) as client:
                await client.subscribe("versioned", since=cursor)
                received = [await client.receive("event") for _ in "ab"]
                names = [event["document"]["data"]["name"] for event in received]
                assert names == (["a", "b"] if change == "removed" else ["now", "now"])
    finally:
        await sync_to_async(tables.__exit__)(None, None, None)


# a log that something else damaged


@pytest.mark.parametrize(
    "image",
    ["[", "[1]", "[{}]", "[null]", "[]", "[[]]", '[{"id": ["x", "g"]}]', '[{"id": {"a": 1}}]'],
)
def test_damaged_images_are_read_as_incomplete(image):
    with watching_by_triggers(Post):
        Post.objects.create(title="a")
        LogEvent.objects.update(after=image)
        Post.objects.create(title="b")
        first, second = read_all("post")
        assert "title" not in first.after
        assert second.after["title"] == "b"


def test_lost_connection_is_not_taken_for_an_unreadable_value(monkeypatch):
    from django.db.utils import OperationalError

    from django_cocobase_realtime.log import column_images

    def fail(*args):
        raise OperationalError("server closed the connection unexpectedly")

    with watching_by_triggers(Post):
        Post.objects.create(title="a")
        with monkeypatch.context() as patch:
            for name in ("_read_postgres", "_read_sqlite"):
                patch.setattr(column_images, name, fail)
            with pytest.raises(OperationalError):
                fetch_new("default", "post", None)
        assert read_all("post")[0].after["title"] == "a"
        forget_logged()
