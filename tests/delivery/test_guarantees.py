"""Delivery guarantees: no event is lost, sent twice or skipped without notice."""

import asyncio
import json
import subprocess
import sys
from functools import partial

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction

from django_cocobase_realtime import capture_disabled
from django_cocobase_realtime.delivery.table import SubscriptionTable
from django_cocobase_realtime.log.log_reader import create_reader
from django_cocobase_realtime.log.retention import rotate_epoch, trim
from django_cocobase_realtime.models import ApiKey, LogEvent, Stream
from tests.app.models import Author, Post

LOSSY = {
    "default": {
        "BACKEND": "django_cocobase_realtime.testing.LossyChannelLayer",
        "CONFIG": {"loss": 1.0},
    }
}


async def receive_events(client, count):
    return [await client.receive("event") for _ in range(count)]


def titles(frames):
    return [frame["document"]["data"]["title"] for frame in frames]


async def test_client_resumes_from_cursor_of_last_event(realtime, api_key):
    async with realtime(token=api_key) as client:
        reply = await client.subscribe("posts")
        assert reply["durable"] is True
        await Post.objects.acreate(title="a")
        event = await client.receive("event")
    await Post.objects.acreate(title="b")
    post = await Post.objects.acreate(title="c", status="published")
    await post.adelete()
    async with realtime(token=api_key) as client:
        resumed = await client.subscribe("posts", since=event["cursor"], scope=reply["scope"])
        assert (resumed["resumed"], resumed["cursor"]) == (True, event["cursor"])
        missed = await receive_events(client, 3)
        assert titles(missed) == ["b", "c", "c"]
        assert [e["event"] for e in missed] == ["created", "created", "deleted"]
        assert all(e["replayed"] for e in missed)
        await Post.objects.acreate(title="d")
        live = await client.receive("event")
        assert live["document"]["data"]["title"] == "d"
        assert "replayed" not in live
        assert await client.receive_nothing()


async def test_event_committed_before_subscribe_is_not_sent(realtime, api_key):
    async with realtime(token=api_key) as first:
        await first.subscribe("posts")
        for n in range(20):
            await Post.objects.acreate(title=str(n))
            async with realtime(token=api_key) as second:
                await second.subscribe("posts")
                assert await second.receive_nothing(0.02)
        assert titles(await receive_events(first, 20)) == [str(n) for n in range(20)]


async def test_event_has_the_same_cursor_for_all_subscribers(realtime, api_key):
    async with realtime(token=api_key) as one, realtime(token=api_key) as two:
        await one.subscribe("posts")
        await two.subscribe("posts", subscription="x", fields=["title"])
        await Post.objects.acreate(title="a")
        assert (await one.receive("event"))["cursor"] == (await two.receive("event"))["cursor"]


async def test_filtered_replay_ends_with_cursor_frame(realtime, api_key):
    async with realtime(token=api_key) as client:
        start = (await client.subscribe("posts"))["cursor"]
        for n in range(5):
            await Post.objects.acreate(title=str(n))
        last = (await receive_events(client, 5))[-1]["cursor"]
        await client.subscribe("posts", filters={"title": "2"}, since=start)
        assert titles([await client.receive("event")]) == ["2"]
        assert await client.receive() == {
            "type": "cursor",
            "subscription": "posts",
            "cursor": last,
        }


async def test_subscription_without_matching_events_receives_cursor_frames(
    realtime, api_key, monkeypatch
):
    monkeypatch.setattr("django_cocobase_realtime.hub.background_tasks.CURSOR_INTERVAL", 0.1)
    async with realtime(token=api_key) as client:
        reply = await client.subscribe("posts", filters={"status": "published"})
        await Post.objects.acreate(title="draft")
        frame = await client.receive("cursor")
        assert frame["subscription"] == "posts"
        assert frame["cursor"] != reply["cursor"]
        assert await client.receive_nothing(0.3)


async def test_trimmed_cursor_and_new_epoch_are_reported_as_resync(realtime, api_key):
    async with realtime(token=api_key) as client:
        start = (await client.subscribe("posts"))["cursor"]
        for n in range(5):
            await Post.objects.acreate(title=str(n))
        last = (await receive_events(client, 5))[-1]["cursor"]
        await sync_to_async(trim)("default", max_age=None, max_events=2)
        reply = await client.subscribe("posts", since=start)
        assert reply["resync"] == {"reason": "retention"}
        assert (await client.subscribe("posts", since=last))["resumed"] is True
        await sync_to_async(rotate_epoch)("default")
        assert await client.closed(5) == 4121  # live connections are closed and must reconnect
    async with realtime(token=api_key) as client:
        reply = await client.subscribe("posts", since=last)
        assert reply["resync"] == {"reason": "epoch_changed"}


async def test_events_arrive_by_polling_when_layer_loses_messages(realtime, api_key, settings):
    settings.CHANNEL_LAYERS = LOSSY
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await sync_to_async(LogEvent.objects.create)(
            collection="posts",
            transaction_id="elsewhere",
            op="created",
            document_id="7",
            after=json.dumps({"title": "from another process"}),
        )
        event = await client.receive("event", timeout=2)
        assert event["document"]["data"]["title"] == "from another process"


async def test_save_in_another_process_arrives_with_sqlite_and_in_memory_layer(
    realtime, api_key, settings
):
    """A save in a shell arrives within two seconds."""
    from django.db import connections

    from tests.support.servers import ROOT, AsgiServer

    env = AsgiServer("daphne").env
    assert connections["default"].settings_dict["NAME"]
    code = (
        "import django; django.setup()\n"
        "from tests.app.models import Post; Post.objects.create(title='from a shell')\n"
    )
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        command = [sys.executable, "-c", code]
        await asyncio.to_thread(subprocess.run, command, env=env, cwd=ROOT, check=True)
        event = await client.receive("event", timeout=2)
        assert event["document"]["data"]["title"] == "from a shell"


async def test_replay_uses_current_permissions(realtime, user, settings):
    path = "tests.declarations.test_permissions.OwnPosts"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": path}}
    }
    async with realtime(user=user) as client:
        start = (await client.subscribe("posts"))["cursor"]
    await Post.objects.acreate(title="own", owner=user)
    await Post.objects.acreate(title="without owner")
    async with realtime(user=user) as client:
        await client.subscribe("posts", since=start)
        assert titles([await client.receive("event")]) == ["own"]
        await client.receive("cursor")
        assert await client.receive_nothing()


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
async def test_each_database_has_the_log_of_its_own_rows(realtime, user, settings):
    settings.DATABASE_ROUTERS = ["tests.checks.test_settings.OtherDatabaseRouter"]
    async with realtime(user=user) as client:
        start = (await client.subscribe("posts"))["cursor"]
        await client.subscribe("authors")
        await Post.objects.acreate(title="in the other one")
        await Author.objects.acreate(name="in the default one")
        assert {f["collection"] for f in await receive_events(client, 2)} == {"posts", "authors"}
        assert await LogEvent.objects.using("other").acount() == 1
        assert await LogEvent.objects.using("default").acount() == 1
        reply = await client.subscribe("posts", since=start)
        assert reply["resumed"] is True
        assert titles([await client.receive("event")]) == ["in the other one"]
        # a row written to another database than the router's is sent, but not logged
        await Post.objects.using("default").acreate(title="other database")
        event = await client.receive("event")
        assert (event["document"]["data"]["title"], "cursor" in event) == ("other database", False)


async def test_client_that_stops_acknowledging_is_disconnected(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LIMITS": {"unacked_events": 3},
    }
    async with realtime(token=api_key) as acking, realtime(token=api_key) as silent:
        await silent.subscribe("posts")
        start = (await acking.subscribe("posts"))["cursor"]
        await acking.send({"type": "ack", "cursor": start})
        for n in range(10):
            await Post.objects.acreate(title=str(n))
            cursor = (await acking.receive("event"))["cursor"]
            if n % 2:
                await acking.send({"type": "ack", "cursor": cursor})
        for _ in range(4):  # no further acks
            await Post.objects.acreate(title="x")
        assert await acking.closed() == 4120
        await receive_events(silent, 14)  # a client that never sent an ack is not limited
    async with realtime(token=api_key) as again:
        assert (await again.subscribe("posts", since=cursor))["resumed"] is True
        assert titles(await receive_events(again, 4)) == ["x"] * 4


async def test_capture_disabled_logs_no_event(realtime, api_key):
    def write():
        with capture_disabled():
            Post.objects.create(title="import")
            Post.objects.all().delete()
        Post.objects.create(title="captured")

    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await sync_to_async(write)()
        assert titles([await client.receive("event")]) == ["captured"]


async def test_events_of_a_transaction_are_not_mixed_with_others(realtime, api_key):
    def both():
        with transaction.atomic():
            author = Author.objects.create(name="A")
            for n in range(3):
                Post.objects.create(title=str(n), author=author)
        connection.close()

    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await client.subscribe("authors")
        await asyncio.gather(*(sync_to_async(both, thread_sensitive=False)() for _ in range(3)))
        frames = await receive_events(client, 12)
        posts = [f for f in frames if f["collection"] == "posts"]
        assert titles(posts) == ["0", "1", "2"] * 3
        for part in (posts[:3], posts[3:6], posts[6:]):
            assert len({f["transaction"] for f in part}) == 1
        assert {f["transaction"] for f in frames} == {f["transaction"] for f in posts}


async def test_unsubscribe_stops_a_replay(realtime, api_key):
    async with realtime(token=api_key) as client:
        start = (await client.subscribe("posts"))["cursor"]
        for n in range(50):
            await Post.objects.acreate(title=str(n))
        await receive_events(client, 50)
        await client.subscribe("posts", since=start)
        await client.send({"type": "unsubscribe", "collection": "posts"})
        async with asyncio.timeout(5):
            while (await client.receive())["type"] != "unsubscribed":
                pass
        await Post.objects.acreate(title="after unsubscribe")
        assert await client.receive_nothing()


def replace_fetch(monkeypatch, replacement):
    """Call ``replacement`` with a reader's method ``fetch_new``, and its arguments, instead."""

    def create(using):
        reader = create_reader(using)
        reader.fetch_new = partial(replacement, reader.fetch_new)
        return reader

    monkeypatch.setattr("django_cocobase_realtime.delivery.topics.create_reader", create)


async def test_unavailable_database_at_subscribe_closes_connection(realtime, api_key, monkeypatch):
    from django.db import OperationalError

    async def fail(*args, **kwargs):
        raise OperationalError("gone")

    async with realtime(token=api_key) as client:
        replace_fetch(monkeypatch, fail)
        await client.send({"type": "subscribe", "collection": "posts"})
        assert await client.closed() == 4101


async def test_two_subscriptions_create_one_stream(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await client.subscribe("posts", subscription="b")
    assert await Stream.objects.acount() == 1
    assert await ApiKey.objects.acount() == 1


async def test_connection_closed_while_subscribing_leaves_no_topic(realtime, api_key, monkeypatch):
    from django_cocobase_realtime import disconnect
    from django_cocobase_realtime.hub.hub import Hub

    async def fetch_slowly(fetch, *args, **kwargs):
        await asyncio.sleep(0.4)
        return await fetch(*args, **kwargs)

    before = len(asyncio.all_tasks())
    replace_fetch(monkeypatch, fetch_slowly)
    async with realtime(token=api_key) as client:
        hub = Hub.current()
        await client.send({"type": "subscribe", "collection": "posts"})
        await asyncio.sleep(0.1)
        await sync_to_async(disconnect)(key=api_key.split("_")[1])
        assert await client.closed() == 4500
    await asyncio.sleep(0.1)
    topics = hub.topics
    assert (topics.topics, topics._readers) == ({}, {})
    assert hub.connections == {}
    assert len(asyncio.all_tasks()) == before


async def test_an_event_does_not_cost_a_look_at_each_subscription(realtime, api_key, monkeypatch):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")

        def refuse(table):
            raise AssertionError("All subscriptions were listed for one event.")

        monkeypatch.setattr(SubscriptionTable, "__iter__", refuse)
        await Post.objects.acreate(title="a")
        assert titles([await client.receive("event")]) == ["a"]
