"""`connections()` in one process, and over several ones."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime import aconnections, connections, disconnect
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.inspection import answers, describe
from django_cocobase_realtime.models import ApiKey
from tests.app.models import Message
from tests.support.client import connect
from tests.support.sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)


async def only():
    (connection,) = await aconnections()
    return connection


async def test_connection_is_described(realtime, user):
    user.first_name = "Ada"
    await user.asave()
    before = datetime.now(UTC)
    async with realtime(user=user) as client:
        await client.join("lobby")
        await client.subscribe("posts", filters={"status": "draft"})
        await client.subscribe("messages", subscription="one", document="7")
        await client.send(
            {"type": "subscribe", "collection": "items", "window": {"order": "name", "limit": 3}}
        )
        await client.send(
            {"type": "subscribe", "collection": "items", "subscription": "n", "aggregate": {}}
        )
        async with asyncio.timeout(5):
            info = await only()
            while [subscription.lag for subscription in info.subscriptions] != [0] * 4:
                await asyncio.sleep(0.02)
                info = await only()
        assert info.server.endswith(f":{os.getpid()}")
        assert (info.user_id, info.user_name) == (str(user.pk), "Ada")
        assert (info.credential, info.project, info.dialect) == ("session", "default", "native")
        assert before - timedelta(seconds=1) < info.connected_at <= datetime.now(UTC)
        assert info.rooms == ("lobby",)
        assert (info.queue_bytes, info.queue_frames) == (0, 0)
        posts, message, window, count = info.subscriptions
        assert (posts.name, posts.collection, posts.filters) == (
            "posts",
            "posts",
            {"status": "draft"},
        )
        assert (message.name, message.collection, message.document) == ("one", "messages", "7")
        assert [s.kind for s in info.subscriptions] == ["events", "events", "window", "aggregate"]
        assert window.filters == count.filters == {}
    assert await aconnections() == []


async def test_key_is_named_by_its_prefix_and_other_credentials_are_hidden(realtime, api_key, user):
    async with realtime(token=api_key):
        info = await only()
        key = await ApiKey.objects.aget()
        assert info.credential == f"key:{key.prefix}"
        assert (info.user_id, info.user_name) == (None, "test")
        assert api_key.rpartition("_")[2] not in repr(info)
    async with realtime(user=user):
        assert (await only()).credential == "session"


async def test_unauthenticated_connection_is_not_listed(realtime):
    async with realtime(authenticate=False):
        assert await aconnections() == []


async def test_address_and_queue_of_client_that_does_not_read(api_key):
    async with open_socket(token=api_key, address="192.0.2.7") as socket:
        await socket.send_frame(type="subscribe", collection="messages")
        await socket.wait_for_frame("subscribed")
        socket.reading.clear()
        for number in range(4):
            await Message.objects.acreate(text=str(number) * 50)
        async with asyncio.timeout(5):
            while (info := await only()).queue_frames < 3:
                await asyncio.sleep(0.02)
        assert info.address == "192.0.2.7"
        assert info.queue_bytes > 3 * 50


async def test_lag_of_suspended_subscription_counts_events(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("messages")
        (connection,) = Hub.current().connections.values()
        topics = Hub.current().topics
        topics.suspend(connection)
        for _ in range(3):
            await Message.objects.acreate(text="x")
        await topics.topics["messages"].tailer.wait_caught_up()
        assert (await only()).subscriptions[0].lag == 3


async def test_long_filters_are_not_listed(realtime, api_key, monkeypatch):
    monkeypatch.setattr(describe, "MAX_FILTER_BYTES", 200)
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", filters={"status": "draft"})
        await client.subscribe("posts", subscription="long", filters={"title": "x" * 200})
        short, long = (await only()).subscriptions
        assert short.filters == {"status": "draft"}
        assert (long.name, long.filters) == ("long", None)


async def test_one_connection_is_disconnected(realtime, api_key):
    async with realtime(token=api_key) as first, realtime(token=api_key) as second:
        one, other = await aconnections()
        await sync_to_async(disconnect)(connection=one.id)
        assert await first.closed() == 4500
        assert [c.id for c in await aconnections()] == [other.id]
        await sync_to_async(disconnect)(connection=other.id, reconnect=True)
        assert await second.closed() == 4201


@pytest.mark.parametrize("names", [{}, {"key": "a", "connection": "b"}, {"user": 1, "key": "a"}])
def test_disconnect_names_exactly_one(names):
    with pytest.raises(TypeError, match="either a user, a key or a connection"):
        disconnect(**names)


async def test_connections_of_other_event_loops_are_listed(api_key):
    opened, ended = threading.Event(), threading.Event()

    async def serve():
        async with open_socket(token=api_key):
            opened.set()
            await asyncio.to_thread(ended.wait, 10)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert await asyncio.to_thread(opened.wait, 5)
        assert len(await aconnections()) == 1
        assert len(await asyncio.to_thread(connections)) == 1
        async with open_socket(token=api_key):
            assert len({c.id for c in await aconnections()}) == 2
    finally:
        ended.set()
        await asyncio.to_thread(thread.join)


async def test_sync_function_refuses_to_block_an_event_loop():
    with pytest.raises(RuntimeError):
        connections()


@contextlib.asynccontextmanager
async def other_process(serve, settings, layers, count, **options):
    """Start two servers on a layer, which this process uses as well, with clients of each."""
    settings.CHANNEL_LAYERS = layers
    servers = [await asyncio.to_thread(serve, "uvicorn", layers=layers) for _ in range(2)]
    async with AsyncExitStack() as stack:
        key = await sync_to_async(lambda: ApiKey.objects.create_key("test")[1])()
        clients = []
        for number in range(count):
            url = servers[number % 2].socket_url
            clients.append(await stack.enter_async_context(connect(url, key)))
            await clients[-1].subscribe("posts", filters={"status": "draft"})
        yield servers, clients


@pytest.mark.server
@pytest.mark.parametrize("kind", ["core", "pubsub"])
async def test_connections_of_all_processes(serve, settings, redis, kind, caplog):
    async with other_process(serve, settings, redis.layer(kind), 4) as (servers, clients):
        started_at = time.monotonic()
        listed = await aconnections(timeout=10)
        assert time.monotonic() - started_at < 3
        assert len({c.id for c in listed}) == 4
        pids = {int(c.server.rpartition(":")[2]) for c in listed}
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert {c.subscriptions[0].filters["status"] for c in listed} == {"draft"}
        # also from a thread without an event loop, and with a connection of this process
        assert len(await asyncio.to_thread(connections)) == 4
        key = await sync_to_async(lambda: ApiKey.objects.create_key("own")[1])()
        async with open_socket(token=key):
            assert len({c.id for c in await aconnections(timeout=10)}) == 5
        await sync_to_async(disconnect)(connection=listed[0].id)
        assert await clients[0].closed() == 4500
        assert caplog.records == []
        # a process that does not answer delays the result until the time is over
        await asyncio.to_thread(servers[0].suspend)
        started_at = time.monotonic()
        with caplog.at_level(logging.WARNING):
            assert len(await aconnections(timeout=0.5)) == 2
        assert 0.4 < time.monotonic() - started_at < 2
        assert "1 of 2 other processes" in caplog.text
        await asyncio.to_thread(servers[0].resume)


@pytest.mark.server
async def test_long_answer_comes_in_parts(serve, settings, redis, monkeypatch):
    """This process answers another one, which is a thread with a broker of the same name."""
    sent = []
    settings.CHANNEL_LAYERS = redis.layer("pubsub")
    monkeypatch.setattr(answers, "MAX_PART_BYTES", 1000)
    key = await sync_to_async(lambda: ApiKey.objects.create_key("own")[1])()
    from django_cocobase_realtime.events import StateRequested

    send = answers.broker.send

    async def note(event, *args):
        sent.append(event)
        return await send(event, *args)

    monkeypatch.setattr(answers.broker, "send", note)
    async with AsyncExitStack() as stack:
        for _ in range(12):
            await stack.enter_async_context(open_socket(token=key))
        Hub.current().dispatch(StateRequested("r", "connections", "another process"))
        async with asyncio.timeout(5):
            while not (sent and sent[-1].is_last):
                await asyncio.sleep(0.01)
        assert len(sent) >= 4
        assert [part.is_last for part in sent] == [False] * (len(sent) - 1) + [True]
        assert len({item["id"] for part in sent for item in part.items}) == 12
        assert len({part.hub for part in sent}) == 1


async def test_lost_layer_leaves_own_connections(settings, caplog, api_key):
    async with open_socket(token=api_key):
        settings.CHANNEL_LAYERS = {
            "default": {
                "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
                "CONFIG": {"hosts": ["redis://127.0.0.1:1/0"]},
            }
        }
        assert len(await aconnections()) == 1
        assert "Other processes could not be asked" in caplog.text
