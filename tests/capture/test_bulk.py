"""Capture of bulk writes through RealtimeManager, and of many-to-many changes."""

import pytest
from django.db import connection, transaction
from django.db.models import F, Value

from django_cocobase_realtime.testing import capture_events
from tests.app.models import Item, Post, Tag

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def items():
    return [Item.objects.create(name=f"item {n}", size=n) for n in range(5)]


@pytest.fixture
def events():
    with capture_events() as captured:
        yield captured


def summary(events):
    return [(e.op, e.document_id, (e.after or e.before)["size"]) for e in events]


def test_update_logs_each_row(items, events):
    assert Item.objects.filter(size__gte=3).update(size=F("size") * 10) == 2
    assert summary(events) == [("updated", str(items[3].pk), 30), ("updated", str(items[4].pk), 40)]
    assert [(e.before["size"], e.changed) for e in events] == [(3, ("size",)), (4, ("size",))]
    assert len({e.transaction for e in events}) == 1
    events.clear()
    assert Item.objects.filter(size=77).update(size=1) == 0
    assert events == []


def test_update_of_the_filtered_field_logs_all_rows(items, events):
    assert Item.objects.filter(size__gte=2).update(size=0) == 3
    assert [e.after["size"] for e in events] == [0] * 3


def test_rolled_back_update_logs_nothing(items, events):
    with pytest.raises(KeyError), transaction.atomic():
        Item.objects.update(size=9)
        raise KeyError
    assert events == []


def test_update_of_many_rows_logs_each(events):
    Item.objects.bulk_create([Item(name=str(n)) for n in range(2500)])
    assert len(events) == 2500
    events.clear()
    assert Item.objects.update(size=1) == 2500
    assert len(events) == 2500


def test_bulk_update_logs_each_row(items, events):
    for item in items:
        item.size += 100
    Item.objects.bulk_update(items, ["size"])
    assert sorted(summary(events)) == sorted(("updated", str(i.pk), i.size) for i in items)


def test_bulk_create_logs_each_row(events):
    created = Item.objects.bulk_create([Item(name="a", size=1), Item(name="b", size=2)])
    assert summary(events) == [("created", str(i.pk), i.size) for i in created]


def test_bulk_create_with_expressions_logs_stored_values(events):
    Item.objects.bulk_create([Item(name="a", size=Value(1) + Value(2)), Item(name="b", size="7")])
    assert sorted(e.after["size"] for e in events) == [3, 7]
    assert all(e.document_id == e.after["id"] for e in events)


def test_bulk_create_ignoring_conflicts_logs_inserted_rows_only(items, events):
    Item.objects.bulk_create(
        [Item(name="item 1", size=99), Item(name="new", size=7)], ignore_conflicts=True
    )
    (event,) = events
    assert (event.op, event.after["name"], event.after["size"]) == ("created", "new", 7)
    assert Item.objects.get(name="item 1").size == 1


def test_bulk_create_updating_conflicts_logs_inserts_and_updates(items, events):
    Item.objects.bulk_create(
        [Item(name="item 1", size=99), Item(name="new", size=7)],
        update_conflicts=True,
        update_fields=["size"],
        unique_fields=["name"],
    )
    logged = {
        e.after["name"]: (e.op, e.before and e.before["size"], e.after["size"]) for e in events
    }
    assert logged == {"item 1": ("updated", 1, 99), "new": ("created", None, 7)}


def test_raw_delete_logs_each_row(items, events):
    Item.objects.filter(size__lt=2)._raw_delete(connection.alias)
    assert summary(events) == [("deleted", str(items[0].pk), 0), ("deleted", str(items[1].pk), 1)]


def test_delete_logs_each_row_once(items, events):
    keys = [str(i.pk) for i in items]
    Item.objects.all().delete()
    assert sorted(e.document_id for e in events) == sorted(keys)
    assert {e.op for e in events} == {"deleted"}


async def test_async_methods_are_captured(items, events):
    await Item.objects.filter(size=0).aupdate(size=5)
    await Item.objects.abulk_create([Item(name="x")])
    assert [e.op for e in events] == ["updated", "created"]


def test_many_to_many_changes_are_logged_as_updates(events):
    post = Post.objects.create(title="x")
    one, two = Tag.objects.create(name="1"), Tag.objects.create(name="2")
    events.clear()

    def logged():
        changes = [(e.op, e.document_id, e.changed) for e in events]
        events.clear()
        return changes

    update = ("updated", str(post.pk), ("tags",))
    post.tags.add(one, two)
    assert logged() == [update]
    post.tags.add(one)  # already related
    assert logged() == []
    post.tags.remove(one)
    assert logged() == [update]
    two.post_set.remove(post)
    assert logged() == [update]
    one.post_set.set([post])
    assert logged() == [update]
    one.post_set.clear()
    assert logged() == [update]
    post.tags.set([one])
    assert logged() == [update]
    post.tags.clear()
    assert logged() == [update]
    post.tags.clear()
    assert logged() == []
