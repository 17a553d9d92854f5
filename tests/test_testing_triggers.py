"""``capture_events`` with collections that are captured by triggers."""

from contextlib import suppress

import pytest
from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction
from django.test import SimpleTestCase, TestCase, override_settings

from django_cocobase_realtime import broadcast, notify_change
from django_cocobase_realtime.capture.triggers import install, remove
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.events import PermissionsChanged
from django_cocobase_realtime.pubsub.broker import broker
from django_cocobase_realtime.testing import capture_events
from tests.app.models import Item, Message, Patient
from tests.support.triggers import execute, installed_triggers

BY_TRIGGERS = {
    "COLLECTIONS": {
        "items": {"model": "app.Item", "capture": "triggers"},
        "messages": "app.Message",
        "patients": {"model": "app.Patient", "capture": "triggers", "aliases": ["people"]},
    }
}

EVENT = PermissionsChanged(("1",))


@pytest.fixture
def triggers(settings):
    settings.COCOBASE_REALTIME = BY_TRIGGERS
    with installed_triggers():
        yield


def names(events):
    return [(event.op, (event.after or event.before)["name"]) for event in events]


@pytest.mark.django_db(transaction=True)
def test_committed_changes_are_in_the_list(triggers):
    Item.objects.create(name="before")
    with capture_events() as events:
        Item.objects.create(name="a")
        execute("INSERT INTO app_item (name, size) VALUES ('b', 1)")
        assert names(events) == [("created", "a"), ("created", "b")]
        Item.objects.filter(name="a").delete()
    Item.objects.create(name="after")
    assert names(events) == [("created", "a"), ("created", "b"), ("deleted", "a")]
    assert {(event.collection, event.seq, event.epoch) for event in events} == {
        ("items", None, None)
    }


@pytest.mark.django_db
def test_changes_are_in_the_list_though_nothing_is_committed(triggers):
    with capture_events() as events:
        Item.objects.create(name="a")
        execute("UPDATE app_item SET size = 5")
        assert [event.changed for event in events] == [None, ("size",)]
    assert names(events) == [("created", "a"), ("updated", "a")]


@pytest.mark.django_db
def test_changes_by_signals_need_a_commit_besides(triggers, django_capture_on_commit_callbacks):
    with capture_events() as events, django_capture_on_commit_callbacks(execute=True):
        Message.objects.create(text="m")
        Item.objects.create(name="i")
    assert sorted(event.collection for event in events) == ["items", "messages"]
    with capture_events() as events:
        Message.objects.create(text="m")
    with pytest.raises(RuntimeError, match="1 change was recorded"):
        len(events)


@pytest.mark.django_db
def test_rolled_back_changes_are_removed(triggers):
    with capture_events() as events:
        with suppress(KeyError), transaction.atomic():
            Item.objects.create(name="a")
            assert names(events) == [("created", "a")]
            raise KeyError
        assert list(events) == []
        Item.objects.create(name="b")
        with suppress(IntegrityError), transaction.atomic():
            Item.objects.create(name="b")
    assert names(events) == [("created", "b")]


@pytest.mark.django_db
def test_list_can_be_read_in_a_broken_transaction(triggers):
    with capture_events() as events, suppress(KeyError), transaction.atomic():
        Item.objects.create(name="a")
        with suppress(IntegrityError):
            Item.objects.create(name="a")
        assert names(events) == [("created", "a")]
        raise KeyError
    assert list(events) == []


@pytest.mark.django_db(transaction=True)
def test_cleared_changes_do_not_return(triggers):
    with capture_events() as events:
        Item.objects.create(name="a")
        events.clear()
        assert list(events) == []
        Item.objects.create(name="b")
        assert names(events) == [("created", "b")]


@pytest.mark.django_db(transaction=True)
def test_order_of_changes_and_other_events(triggers):
    with capture_events() as events:
        Item.objects.create(name="a")
        Message.objects.create(text="m")
        execute("UPDATE app_item SET size = 1")
        broadcast("room", "x")
        Item.objects.update(size=2)
    kinds = [getattr(event, "collection", "broadcast") for event in events]
    assert kinds == ["items", "messages", "items", "broadcast", "items"]


@pytest.mark.django_db(transaction=True)
def test_changes_are_decoded_and_named_as_for_clients(triggers):
    with capture_events() as events:
        Patient.objects.create(name="x", diagnosis="flu")
    (event,) = events
    assert (event.collection, event.after["diagnosis"]) == ("patients", "flu")


@pytest.mark.django_db(transaction=True)
def test_changes_are_in_the_list_once_while_triggers_are_missing(triggers):
    with capture_events() as events:
        remove(registry.get("items"))
        Item.objects.create(name="a")
        install(registry.get("items"))
        Item.objects.create(name="b")
        notify_change("items", "updated", Item.objects.get(name="a"))
    assert names(events) == [("created", "a"), ("created", "b"), ("updated", "a")]


@pytest.mark.django_db(transaction=True)
async def test_in_an_event_loop(triggers):
    with capture_events() as events:
        await Item.objects.acreate(name="a")
        await sync_to_async(execute)("INSERT INTO app_item (name, size) VALUES ('b', 1)")
        assert names(events) == [("created", "a"), ("created", "b")]
        await Item.objects.filter(name="a").adelete()
    assert names(events) == [("created", "a"), ("created", "b"), ("deleted", "a")]


def test_without_a_database(settings):
    settings.COCOBASE_REALTIME = BY_TRIGGERS
    with capture_events() as events:
        broker.publish(EVENT)
    assert events == [EVENT]


@override_settings(COCOBASE_REALTIME=BY_TRIGGERS)
class CaptureEventsWithoutDatabaseTests(SimpleTestCase):
    def test_broadcast(self):
        with capture_events() as events:
            broker.publish(EVENT)
        assert events == [EVENT]


@override_settings(COCOBASE_REALTIME=BY_TRIGGERS)
class CaptureEventsTests(TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.enterClassContext(installed_triggers())

    def test_changes_and_queries(self):
        with self.assertNumQueries(1), capture_events() as events:
            Item.objects.create(name="a")
            assert names(events) == [("created", "a")]

    async def test_in_an_event_loop(self):
        with capture_events() as events:
            await Item.objects.acreate(name="a")
            assert names(events) == [("created", "a")]
        assert names(events) == [("created", "a")]
