"""Rows of presence and of room history are deleted when no client needs them."""

import asyncio
import io
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.utils import timezone

from django_cocobase_realtime.hub import background_tasks
from django_cocobase_realtime.models import (
    Claim,
    PresenceConnection,
    PresenceMember,
    PresenceRoom,
    PresenceServer,
    RoomMessage,
    RoomStream,
)
from django_cocobase_realtime.options import PresenceSettings
from django_cocobase_realtime.presence.base import PresenceEntry
from django_cocobase_realtime.presence.database import DatabasePresence
from django_cocobase_realtime.rooms.retention import expire_presence, trim_history
from tests.support.rooms import configure

pytestmark = pytest.mark.django_db(transaction=True)
MONTH = 30 * 86400


@pytest.fixture
def backend(settings):
    configure(settings, {"kept-*": {"history": 3}, "*": {}})
    return DatabasePresence(PresenceSettings())


def keep(name, count, *, head=None, age=0.0):
    """Store the history of a room, the last ``count`` of ``head`` broadcasts."""
    head = count if head is None else head
    stream = RoomStream.objects.create(project="default", name=name, head=head)
    created_at = timezone.now() - timedelta(seconds=age)
    RoomMessage.objects.bulk_create(
        RoomMessage(stream=stream, seq=seq, event="{}", created_at=created_at)
        for seq in range(head - count + 1, head + 1)
    )
    return stream


def enter(backend, name, server="server"):
    key = ("default", name)
    return backend.enter(PresenceEntry(key, f"c {name}", server, "ada", "Ada", name))


def kept():
    return {
        stream.name: list(stream.messages.order_by("seq").values_list("seq", flat=True))
        for stream in RoomStream.objects.all()
    }


def test_history_of_unused_rooms_is_deleted(backend):
    backend.renew_lease("server", 60)
    for name, age in (("kept-new", 10), ("kept-old", MONTH + 10), ("kept-old-joined", MONTH + 10)):
        keep(name, 2, age=age)
    enter(backend, "kept-old-joined")
    assert trim_history(MONTH) == 1
    assert kept() == {"kept-new": [1, 2], "kept-old-joined": [1, 2]}
    assert trim_history(None) == 0
    assert trim_history(0) == 1
    assert kept() == {"kept-old-joined": [1, 2]}


def test_age_counts_from_the_last_broadcast(backend):
    stream = keep("kept-1", 2, age=MONTH + 10)
    RoomMessage.objects.filter(seq=2).update(created_at=timezone.now())
    assert trim_history(MONTH) == 0
    assert kept() == {stream.name: [1, 2]}


def test_streams_of_rooms_without_broadcast_are_deleted(backend):
    backend.renew_lease("server", 60)
    for n in range(1000):
        keep(f"kept-{n}", 0)
    enter(backend, "kept-5")
    assert trim_history(None) == 999
    assert kept() == {"kept-5": []}


def test_history_that_the_declaration_no_longer_keeps_is_deleted(backend):
    keep("kept-shrunk", 10, head=12)
    keep("off", 10)
    assert trim_history(None) == 1
    assert kept() == {"kept-shrunk": [10, 11, 12]}


def test_stream_with_a_new_broadcast_is_not_deleted(backend, monkeypatch):
    from django_cocobase_realtime.rooms import retention

    stream = keep("kept-1", 1, age=MONTH + 10)
    find = retention._find_unused

    def find_and_broadcast(*args):
        unused = find(*args)
        RoomStream.objects.filter(pk=stream.pk).update(head=2)
        RoomMessage.objects.create(stream=stream, seq=2, event="{}")
        return unused

    monkeypatch.setattr(retention, "_find_unused", find_and_broadcast)
    assert trim_history(MONTH) == 0
    assert kept() == {"kept-1": [1, 2]}


def test_command_deletes_rows_of_killed_servers_and_expired_keys(backend):
    backend.renew_lease("killed", -1)
    enter(backend, "kept-1", server="killed")
    backend.acquire_key("used", -1)
    backend.acquire_key("recent", 300)
    keep("kept-1", 1, age=MONTH + 10)
    out = io.StringIO()
    call_command("realtime_trim", stdout=out)
    assert out.getvalue() == "0 dropped in all.\n1 histories of rooms dropped.\n"
    for model in (PresenceServer, PresenceRoom, PresenceMember, PresenceConnection, RoomStream):
        assert not model.objects.exists()
    assert Claim.objects.count() == 1


def test_command_takes_an_age(backend):
    keep("kept-1", 1, age=100)
    call_command("realtime_trim", "--room-max-age", "200", stdout=io.StringIO())
    assert kept() == {"kept-1": [1]}
    call_command("realtime_trim", "--room-max-age", "50", stdout=io.StringIO())
    assert kept() == {}


def test_tables_are_emptied_after_another_backend_was_chosen(backend, settings):
    backend.renew_lease("killed", -1)
    enter(backend, "kept-1", server="killed")
    backend.acquire_key("used", -1)
    settings.COCOBASE_REALTIME = {"PRESENCE": {"BACKEND": "memory"}}
    expire_presence()
    assert not PresenceRoom.objects.exists()
    assert not Claim.objects.exists()


async def test_server_deletes_rows_although_its_clients_are_in_no_room(
    realtime, api_key, backend, monkeypatch
):
    monkeypatch.setattr(background_tasks, "TRIM_INTERVAL", 0.2)
    monkeypatch.setattr(background_tasks, "_history_trim", background_tasks._HistoryTrim())
    await sync_to_async(keep)("kept-1", 1, age=MONTH + 10)
    await sync_to_async(backend.renew_lease)("killed", -1)
    await sync_to_async(enter)(backend, "kept-2", server="killed")
    async with realtime(token=api_key):
        async with asyncio.timeout(5):
            while await PresenceRoom.objects.aexists() or await RoomStream.objects.aexists():
                await asyncio.sleep(0.1)


async def test_client_resyncs_after_its_history_was_deleted(realtime, api_key, backend):
    async with realtime(token=api_key) as client:
        await client.join("kept-1")
        await client.send({"type": "broadcast", "room": "kept-1", "message": "first"})
        cursor = (await client.receive("event"))["cursor"]
    await sync_to_async(backend.expire)()
    await sync_to_async(PresenceRoom.objects.all().delete)()
    await sync_to_async(trim_history)(0)
    assert await sync_to_async(kept)() == {}
    async with realtime(token=api_key) as client:
        joined = await client.join("kept-1", since=cursor)
        assert joined["resync"]
        await client.send({"type": "broadcast", "room": "kept-1", "message": "second"})
        assert (await client.receive("event"))["message"] == "second"
