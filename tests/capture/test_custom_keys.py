"""Primary keys whose Python values can be neither hashed nor, some of them, shown as text."""

import pytest
from django.db import models

from django_cocobase_realtime.capture import deletes, updates
from django_cocobase_realtime.declarations.registry import registry
from tests.app.fields import Wrapper
from tests.capture_app.models import (
    Team,
    Wrapped,
    WrappedChild,
    WrappedLabel,
    WrappedNumber,
)
from tests.support.watching import (
    assert_equality_filters_agree,
    assert_log_gives_tables,
    logged,
    outcome,
    summary,
    table_images,
    watching,
)

pytestmark = pytest.mark.django_db(transaction=True)


def write():
    row = Wrapped.objects.create(id="a", name="1")
    row.name = "2"
    row.save()
    Wrapped.objects.get().save(update_fields=["name"])
    Wrapped.objects.bulk_create([Wrapped(id=Wrapper("b")), Wrapped(id="c")])
    Wrapped.objects.filter(pk=Wrapper("b")).update(name="3")
    Wrapped.objects.update(name="4")
    Wrapped.objects.bulk_create(
        [Wrapped(id="c", name="5"), Wrapped(id="d", name="6")],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["name"],
    )
    Wrapped.objects.filter(pk="c").update(id="e")
    models.QuerySet(Wrapped).filter(pk="e")._raw_delete("default")
    return list(Wrapped.objects.order_by("name").values_list("name", flat=True))


EXPECTED = [
    ("created", "a"),
    ("updated", "a"),
    ("updated", "a"),
    ("created", "b"),
    ("created", "c"),
    ("updated", "b"),
    ("updated", "a"),
    ("updated", "b"),
    ("updated", "c"),
    ("updated", "c"),
    ("created", "d"),
    ("deleted", "c"),
    ("created", "e"),
    ("deleted", "e"),
]


@pytest.mark.parametrize("options", [{}, {"track": False}], ids=["tracked", "untracked"])
def test_writes_are_logged(options):
    unwatched = outcome(write)
    Wrapped.objects.all()._raw_delete("default")
    with watching(Wrapped, **options):
        assert outcome(write) == unwatched
        # the order of the rows of one statement is not defined
        operations = sorted((change.op, change.document_id) for change in logged())
        if options:  # the row before an update of the key is not known
            assert operations == sorted(change for change in EXPECTED if change != ("deleted", "c"))
        else:
            assert operations == sorted(EXPECTED)
            assert_log_gives_tables()


def test_writes_are_logged_without_returning(monkeypatch):
    for module in (updates, deletes):
        monkeypatch.setattr(module, "can_return_rows", lambda connection: False)
    with watching(Wrapped):
        row = Wrapped.objects.create(id="a")
        row.save()
        Wrapped.objects.update(name="x")
        Wrapped.objects.all()._raw_delete("default")
        assert [op for _, op, _ in summary()] == ["created", "updated", "updated", "deleted"]


def test_rows_in_several_tables_are_logged():
    with watching(Wrapped, WrappedChild):
        child = WrappedChild.objects.create(id="a", n=1)
        child.n = 2
        child.save()
        WrappedChild.objects.update(n=3, name="x")
        Wrapped.objects.update(name="y")
        Wrapped.objects.bulk_create(
            [Wrapped(id="a", name="z")],
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=["name"],
        )
        assert_log_gives_tables()


def test_rows_of_through_table_are_logged():
    with watching(Wrapped):
        team = Team.objects.create(name="t")
        first, second = (Wrapped.objects.create(id=id) for id in "ab")
        WrappedLabel.objects.create(wrapped=first, team=team)
        WrappedLabel.objects.update(wrapped=second)
        WrappedLabel.objects.all()._raw_delete("default")
        changes = [(change.document_id, change.changed) for change in logged()][2:]
        assert changes == [(id, ("labels",)) for id in "aabb"]


def test_value_without_text_is_logged():
    with watching(WrappedNumber):
        WrappedNumber.objects.create(name="a")
        WrappedNumber.objects.bulk_create([WrappedNumber(name="b")])
        WrappedNumber.objects.update(name="c")
        assert [op for _, op, _ in summary()] == ["created", "created", "updated", "updated"]
        assert len({change.document_id for change in logged()}) == 2


def test_filters_agree():
    with watching(Wrapped):
        Wrapped.objects.bulk_create([Wrapped(id=id) for id in "abc"])
        collection = registry.get("wrapped")
        assert_equality_filters_agree(collection, table_images(collection), ("id", "name"))


async def test_snapshot_event_and_replay(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"wrapped": "capture_app.Wrapped"}}
    await Wrapped.objects.acreate(id="a")
    async with realtime(token=api_key) as client:
        cursor = (await client.subscribe("wrapped", snapshot=True))["cursor"]
        (document,) = (await client.receive("snapshot"))["documents"]
        assert document == {"id": "a", "data": {"name": ""}}
        await Wrapped.objects.aupdate(name="x")
        event = await client.receive("event")
        assert event["document"]["id"] == "a"
        await client.subscribe("wrapped", subscription="one", document="a", snapshot=True)
        assert len((await client.receive("snapshot"))["documents"]) == 1
    async with realtime(token=api_key) as client:
        await client.subscribe("wrapped", since=cursor)
        assert (await client.receive("event"))["document"]["data"] == {"name": "x"}
