"""What a client can rely on: nothing lost, nothing twice, nothing silently skipped."""

import asyncio
import json
import subprocess
import sys
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction

from django_cocobase_realtime import capture_disabled
from django_cocobase_realtime.log.retention import rotate_epoch, trim
from django_cocobase_realtime.models import ApiKey, LogEvent, Stream
from tests.app.models import Author, Post

LOSSY = {
    "default": {
        "BACKEND": "django_cocobase_realtime.testing.LossyChannelLayer",
        "CONFIG": {"loss": 1.0},
    }
}


async def events(client, count):
    return [await client.receive("event") for _ in range(count)]


def titles(frames):
    return [frame["document"]["data"]["title"] for frame in frames]


async def test_events_have_cursors_and_a_client_resumes_from_the_last(realtime, api_key):
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
        missed = await events(client, 3)
        assert titles(missed) == ["b", "c", "c"]
        assert [e["event"] for e in missed] == ["created", "created", "deleted"]
        assert all(e["replayed"] for e in missed)
        await Post.objects.acreate(title="d")
        live = await client.receive("event")
        assert live["document"]["data"]["title"] == "d"
        assert "replayed" not in live
        assert await client.receive_nothing()


async def test_what_was_committed_before_is_not_told_after(realtime, api_key):
    async with realtime(token=api_key) as first:
        await first.subscribe("posts")
        for n in range(20):
            await Post.objects.acreate(title=str(n))
            async with realtime(token=api_key) as second:
                await second.subscribe("posts")
                assert await second.receive_nothing(0.02)
        assert titles(await events(first, 20)) == [str(n) for n in range(20)]


async def test_the_same_event_has_the_same_cursor_for_everybody(realtime, api_key):
    async with realtime(token=api_key) as one, realtime(token=api_key) as two:
        await one.subscribe("posts")
        await two.subscribe("posts", subscription="x", fields=["title"])
        await Post.objects.acreate(title="a")
        assert (await one.receive("event"))["cursor"] == (await two.receive("event"))["cursor"]


async def test_a_filtered_replay_ends_with_a_cursor(realtime, api_key):
    async with realtime(token=api_key) as client:
        start = (await client.subscribe("posts"))["cursor"]
        for n in range(5):
            await Post.objects.acreate(title=str(n))
        last = (await events(client, 5))[-1]["cursor"]
        await client.subscribe("posts", filters={"title": "2"}, since=start)
        assert titles([await client.receive("event")]) == ["2"]
        assert await client.receive() == {
            "type": "cursor",
            "subscription": "posts",
            "cursor": last,
        }


async def test_quiet_subscriptions_hear_how_far_they_are(realtime, api_key, monkeypatch):
    monkeypatch.setattr("django_cocobase_realtime.hub.maintenance.CURSOR_INTERVAL", 0.1)
    async with realtime(token=api_key) as client:
        reply = await client.subscribe("posts", filters={"status": "published"})
        await Post.objects.acreate(title="draft")
        frame = await client.receive("cursor")
        assert frame["subscription"] == "posts"
        assert frame["cursor"] != reply["cursor"]
        assert await client.receive_nothing(0.3)


async def test_a_trimmed_cursor_and_a_new_epoch_are_told(realtime, api_key):
    async with realtime(token=api_key) as client:
        start = (await client.subscribe("posts"))["cursor"]
        for n in range(5):
            await Post.objects.acreate(title=str(n))
        last = (await events(client, 5))[-1]["cursor"]
        await sync_to_async(trim)("default", max_age=None, max_events=2)
        reply = await client.subscribe("posts", since=start)
        assert reply["resync"] == {"reason": "retention"}
        assert (await client.subscribe("posts", since=last))["resumed"] is True
        await sync_to_async(rotate_epoch)("default")
        assert await client.closed(5) == 4121  # live connections are told to come back
    async with realtime(token=api_key) as client:
        reply = await client.subscribe("posts", since=last)
        assert reply["resync"] == {"reason": "epoch_changed"}


async def test_without_a_layer_events_arrive_by_the_poll(realtime, api_key, settings):
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


async def test_another_process_reaches_the_embedded_default(realtime, api_key, settings):
    """SQLite and the in-memory layer: a shell saves, the page hears within two seconds."""
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


async def test_rights_of_today_decide_a_replay(realtime, user, settings):
    path = "tests.declarations.test_permissions.OwnPosts"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": path}}
    }
    async with realtime(user=user) as client:
        start = (await client.subscribe("posts"))["cursor"]
    await Post.objects.acreate(title="own", owner=user)
    await Post.objects.acreate(title="nobody's")
    async with realtime(user=user) as client:
        await client.subscribe("posts", since=start)
        assert titles([await client.receive("event")]) == ["own"]
        await client.receive("cursor")
        assert await client.receive_nothing()


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
async def test_each_database_keeps_the_log_of_its_own_rows(realtime, user, settings):
    settings.DATABASE_ROUTERS = ["tests.checks.test_settings.Elsewhere"]
    async with realtime(user=user) as client:
        start = (await client.subscribe("posts"))["cursor"]
        await client.subscribe("authors")
        await Post.objects.acreate(title="in the other one")
        await Author.objects.acreate(name="in the default one")
        assert {f["collection"] for f in await events(client, 2)} == {"posts", "authors"}
        assert await LogEvent.objects.using("other").acount() == 1
        assert await LogEvent.objects.using("default").acount() == 1
        reply = await client.subscribe("posts", since=start)
        assert reply["resumed"] is True
        assert titles([await client.receive("event")]) == ["in the other one"]
        # a row of ours that is written to a foreign database is told, though no log keeps it
        await Post.objects.using("default").acreate(title="astray")
        event = await client.receive("event")
        assert (event["document"]["data"]["title"], "cursor" in event) == ("astray", False)


async def test_a_client_on_credit_is_cut_where_its_socket_tells_nothing(
    realtime, api_key, settings
):
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
        for _ in range(4):  # and then it says no more
            await Post.objects.acreate(title="x")
        assert await acking.closed() == 4120
        await events(silent, 14)  # it never promised anything
    async with realtime(token=api_key) as again:
        assert (await again.subscribe("posts", since=cursor))["resumed"] is True
        assert titles(await events(again, 4)) == ["x"] * 4


async def test_suppress(realtime, api_key):
    def quiet():
        with capture_disabled():
            Post.objects.create(title="import")
            Post.objects.all().delete()
        Post.objects.create(title="told")

    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await sync_to_async(quiet)()
        assert titles([await client.receive("event")]) == ["told"]


async def test_a_transaction_arrives_whole_and_unmixed(realtime, api_key):
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
        frames = await events(client, 12)
        posts = [f for f in frames if f["collection"] == "posts"]
        assert titles(posts) == ["0", "1", "2"] * 3
        for part in (posts[:3], posts[3:6], posts[6:]):
            assert len({f["transaction"] for f in part}) == 1
        assert {f["transaction"] for f in frames} == {f["transaction"] for f in posts}


async def test_an_unsubscribed_replay_stops_and_leaves_nothing(realtime, api_key):
    async with realtime(token=api_key) as client:
        start = (await client.subscribe("posts"))["cursor"]
        for n in range(50):
            await Post.objects.acreate(title=str(n))
        await events(client, 50)
        await client.subscribe("posts", since=start)
        await client.send({"type": "unsubscribe", "collection": "posts"})
        async with asyncio.timeout(5):
            while (await client.receive())["type"] != "unsubscribed":
                pass
        await Post.objects.acreate(title="unheard")
        assert await client.receive_nothing()


async def test_the_database_gone_is_told_at_subscribe(realtime, api_key, monkeypatch):
    from django.db import OperationalError

    def gone(*args):
        raise OperationalError("gone")

    async with realtime(token=api_key) as client:
        monkeypatch.setattr("django_cocobase_realtime.delivery.tailer.fetch_new", gone)
        await client.send({"type": "subscribe", "collection": "posts"})
        assert await client.closed() == 4101


async def test_streams_and_keys_are_few(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await client.subscribe("posts", subscription="b")
    assert await Stream.objects.acount() == 1
    assert await ApiKey.objects.acount() == 1


async def test_a_connection_that_is_cut_while_it_subscribes_leaves_nothing(
    realtime, api_key, monkeypatch
):
    from django_cocobase_realtime import disconnect
    from django_cocobase_realtime.delivery import tailer as feed
    from django_cocobase_realtime.hub.hub import Hub

    def slow(*args):
        time.sleep(0.4)
        return follow(*args)

    before = len(asyncio.all_tasks())
    follow = feed.fetch_new
    monkeypatch.setattr(feed, "fetch_new", slow)
    async with realtime(token=api_key) as client:
        hub = Hub.current()
        await client.send({"type": "subscribe", "collection": "posts"})
        await asyncio.sleep(0.1)
        await sync_to_async(disconnect)(key=api_key.split("_")[1])
        assert await client.closed() == 4500
    await asyncio.sleep(0.1)
    following = hub.topics
    assert (following.topics, following._threads) == ({}, {})
    assert hub.connections == {}
    assert len(asyncio.all_tasks()) == before
