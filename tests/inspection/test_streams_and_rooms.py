"""`streams()` and `rooms_info()` in one process, and over several ones."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from django_cocobase_realtime.inspection import describe, streams
from django_cocobase_realtime.inspection.rooms import arooms_info, rooms_info
from django_cocobase_realtime.inspection.streams import astreams
from django_cocobase_realtime.models import ApiKey, LogEvent, Stream
from tests.app.models import Message
from tests.support.client import connect

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


async def stream_named(name, **options):
    (stream,) = [stream for stream in await astreams(**options) if stream.name == name]
    return stream


async def test_stream_is_described(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("messages")
        for _ in range(3):
            await Message.objects.acreate(text="x")
            await client.receive("event")
        stream = await stream_named("messages")
        assert (stream.database, stream.head, stream.floor) == ("default", 3, 0)
        assert (stream.unnumbered, stream.rate, stream.followers, stream.lag) == (0, 3, 1, 0)
        # events that happened before the last minute do not count
        old = timezone.now() - timedelta(minutes=2)
        await LogEvent.objects.filter(collection="messages", seq=1).aupdate(created_at=old)
        assert (await stream_named("messages")).rate == 2
    stream = await stream_named("messages")
    assert (stream.head, stream.followers) == (3, 0)
    await Message.objects.acreate(text="not numbered yet")
    assert (await stream_named("messages")).unnumbered == 1


async def test_slowest_follower_decides_about_the_lag(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("messages")
        await Stream.objects.filter(collection="messages").aupdate(head=7)
        assert (await stream_named("messages")).lag == 7


async def test_high_rate_is_estimated(monkeypatch):
    monkeypatch.setattr(streams, "RATE_EVENTS", 4)
    await Stream.objects.aupdate_or_create(collection="messages", defaults={"head": 9})
    now = timezone.now()
    for seq in range(1, 10):
        await LogEvent.objects.acreate(
            collection="messages",
            seq=seq,
            transaction_id="t",
            op="created",
            document_id=str(seq),
            created_at=now - timedelta(seconds=3 * (9 - seq)),
        )
    rate = (await stream_named("messages")).rate
    assert 18 <= rate <= 27  # four events in nine seconds, or a little more


def test_synchronous_functions(db):
    Stream.objects.create(collection="posts", head=2)
    assert [(s.name, s.head) for s in streams.streams()] == [("posts", 2)]
    assert rooms_info() == []


async def test_room_is_described(realtime, api_key, user, monkeypatch):
    async with (
        realtime(user=user) as one,
        realtime(user=user) as two,
        realtime(token=api_key) as app,
    ):
        await one.join("lobby", state={"secret": "x"})
        await two.join("lobby")
        await app.join("lobby", presence=False)
        await app.join("hall")
        hall, lobby = await arooms_info()
        assert (hall.project, hall.name, hall.participants, hall.connections) == (
            "default",
            "hall",
            1,
            1,
        )
        assert (lobby.name, lobby.title, lobby.participants, lobby.connections) == (
            "lobby",
            "lobby",
            1,
            3,
        )
        assert [(member.id, member.name) for member in lobby.members] == [(str(user.pk), "ada")]
        assert "secret" not in repr(lobby)
        monkeypatch.setattr(describe, "MAX_MEMBERS", 0)
        assert (await arooms_info())[1].members == ()


@pytest.mark.server
async def test_streams_and_rooms_of_all_processes(serve, settings, redis):
    layers = settings.CHANNEL_LAYERS = redis.layer("pubsub")
    servers = [await asyncio.to_thread(serve, "uvicorn", layers=layers) for _ in range(2)]
    key = await sync_to_async(lambda: ApiKey.objects.create_key("test")[1])()
    async with AsyncExitStack() as stack:
        for server in (*servers, servers[0]):
            client = await stack.enter_async_context(connect(server.socket_url, key))
            await client.send({"type": "join", "room": "lobby"})
            await client.receive("joined")
            await client.send({"type": "subscribe", "collection": "messages"})
            while (await client.receive())["type"] != "subscribed":
                pass
        async with asyncio.timeout(10):
            while True:
                (lobby,) = await arooms_info(timeout=5)
                if lobby.participants == 3:
                    break
        assert lobby.connections == 3
        assert (await stream_named("messages", timeout=5)).followers == 2
