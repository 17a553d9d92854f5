"""Rows with composite and with long primary keys: events, snapshots, single documents, resuming."""

import json

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from django_cocobase_realtime import notify_change
from django_cocobase_realtime.capture.triggers import install, remove
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.declarations.serialization import RowCodec
from django_cocobase_realtime.permissions import Permission
from tests.app.models import LongKey, Seat
from tests.support.log import read_all

pytestmark = pytest.mark.django_db(transaction=True)


class EvenSeats(Permission):
    def has_object_permission(self, identity, seat):
        return seat.pk[1] % 2 == 0


def seats(settings, **options):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"seats": {"model": "app.Seat", **options}}}


def write():
    """Create, update and delete by every kind of statement."""
    Seat.objects.create(event='Zoë, "live"', number=1, holder="a")
    Seat.objects.bulk_create([Seat(event="b", number=2), Seat(event="b", number=3)])
    Seat.objects.filter(event="b").update(holder="x")
    seat = Seat.objects.get(pk=("b", 2))
    seat.holder = "y"
    seat.save()
    seat.delete()
    with transaction.atomic():
        Seat.objects.filter(number=3).delete()


EXPECTED = [
    ("created", '["Zoë, \\"live\\"",1]'),
    ("created", '["b",2]'),
    ("created", '["b",3]'),
    ("updated", '["b",2]'),
    ("updated", '["b",3]'),
    ("updated", '["b",2]'),
    ("deleted", '["b",2]'),
    ("deleted", '["b",3]'),
]


def test_writes_of_rows_with_composite_key_are_logged(settings):
    seats(settings)
    write()
    events = read_all("seats")
    assert [(event.op, event.document_id) for event in events] == EXPECTED
    assert events[5].changed == ("holder",)


def test_many_rows_with_composite_keys_are_logged(settings):
    seats(settings)
    Seat.objects.bulk_create([Seat(event="b", number=number) for number in range(1200)])
    Seat.objects.update(holder="x")
    Seat.objects.all().delete()
    events = read_all("seats")
    assert [event.op for event in events] == ["created"] * 1200 + ["updated"] * 1200 + (
        ["deleted"] * 1200
    )


async def test_snapshot_of_many_rows_with_composite_keys(realtime, api_key, settings):
    seats(settings)
    rows = [Seat(event="b", number=number) for number in range(450)]
    await Seat.objects.abulk_create(rows)
    async with realtime(token=api_key) as client:
        await client.subscribe("seats", snapshot=True)
        pages = [await client.receive("snapshot") for _ in range(3)]
        assert sum(len(page["documents"]) for page in pages) == 450


def test_triggers_give_composite_keys_the_same_ids(settings):
    seats(settings, capture="triggers")
    install(registry.get("seats"))
    try:
        write()
    finally:
        remove(registry.get("seats"))
    assert [(event.op, event.document_id) for event in read_all("seats")] == EXPECTED


def test_notified_change_of_row_with_composite_key_is_logged(settings):
    seats(settings)
    seat = Seat.objects.create(event="b", number=2)
    notify_change("seats", "updated", seat)
    notify_change("seats", "deleted", seat)
    assert [event.document_id for event in read_all("seats")] == ['["b",2]'] * 3


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('["b",2]', ("b", 2)),
        ('["b", "2"]', ("b", 2)),
        ('["b"]', None),
        ('["b","x"]', None),
        ("b", None),
        ("{}", None),
    ],
)
def test_key_of_a_document_id(text, key):
    assert RowCodec(Seat).key(text) == key


async def test_row_with_composite_key_is_in_snapshot_event_and_replay(realtime, api_key, settings):
    seats(settings)
    await Seat.objects.acreate(event="b", number=2)
    await Seat.objects.acreate(event="a", number=1)
    async with realtime(token=api_key) as client:
        cursor = (await client.subscribe("seats", snapshot={"order": "-number"}))["cursor"]
        documents = (await client.receive("snapshot"))["documents"]
        assert [json.loads(document["id"]) for document in documents] == [["b", 2], ["a", 1]]
        assert documents[0]["data"] == {"event": "b", "number": 2, "holder": ""}
        await Seat.objects.filter(number=2).adelete()
        event = await client.receive("event")
        assert (event["event"], event["document"]["id"]) == ("deleted", '["b",2]')
    async with realtime(token=api_key) as client:
        await client.subscribe("seats", since=cursor)
        assert (await client.receive("event"))["document"]["id"] == '["b",2]'


async def test_subscription_to_one_document_with_composite_key(realtime, api_key, settings):
    seats(settings)
    await Seat.objects.acreate(event="b", number=2)
    async with realtime(token=api_key) as client:
        await client.subscribe("seats", document='["b",2]', snapshot=True)
        (document,) = (await client.receive("snapshot"))["documents"]
        assert document["id"] == '["b",2]'
        await Seat.objects.acreate(event="b", number=3)
        await Seat.objects.filter(event="b").aupdate(holder="x")
        assert (await client.receive("event"))["document"]["id"] == '["b",2]'
        for impossible in ('["b"]', "b", '["b",{}]', "[" * 10_000):
            await client.subscribe("seats", subscription="s", document=impossible, snapshot=True)
            assert (await client.receive("snapshot"))["documents"] == []


async def test_row_permission_is_given_the_composite_key(realtime, api_key, settings):
    seats(settings, permission=EvenSeats)
    await sync_to_async(write)()
    async with realtime(token=api_key) as client:
        await Seat.objects.acreate(event="c", number=4)
        await client.subscribe("seats", snapshot=True)
        documents = (await client.receive("snapshot"))["documents"]
        assert [document["id"] for document in documents] == ['["c",4]']
        await Seat.objects.acreate(event="c", number=5)
        await Seat.objects.acreate(event="c", number=6)
        assert (await client.receive("event"))["document"]["id"] == '["c",6]'


async def test_key_of_any_length(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"paths": "app.LongKey"}}
    path = "ü" * 5000
    async with realtime(token=api_key) as client:
        await client.subscribe("paths", document=path)
        await LongKey.objects.acreate(path=path)
        assert (await client.receive("event"))["document"]["id"] == path
        await LongKey.objects.aupdate(size=1)
        assert (await client.receive("event"))["changed"] == ["size"]
