"""Clients that ask for the same snapshot share one read."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from django_cocobase_realtime import capture_disabled, disconnect
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.delivery import catchup, shared_snapshots
from django_cocobase_realtime.events import Change
from django_cocobase_realtime.filters import parse
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.utils.fair_queue import WorkersOverloaded
from django_cocobase_realtime.wire.codes import CloseCode
from tests.app.models import Post
from tests.support.queries import recorded_statements
from tests.support.snapshot_reads import (
    assert_same_text,
    configure_fixture,  # noqa: F401 - a fixture
    connect,
    reads_fixture,  # noqa: F401 - a fixture
    request,
    snapshots,
    titles,
)
from tests.support.sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)


async def test_clients_that_ask_at_once_share_one_read_and_one_text(api_key, reads):
    await Post.objects.abulk_create(Post(title=str(n)) for n in range(50))
    async with AsyncExitStack() as stack:
        sockets = await connect(stack, api_key, 20)
        reads.gate.clear()
        with recorded_statements() as statements:
            await request(*sockets[:10])
            # the rows are being read
            await request(*sockets[10:])
            reads.gate.set()
            frames = await snapshots(*sockets)
        assert reads.count == 1
        assert len(statements.of("app_post")) <= 3
        assert all(titles(pages) == [str(n) for n in range(50)] for pages in frames)
        assert_same_text(sockets)
        await Post.objects.acreate(title="live")
        for socket in sockets:
            await socket.wait_for_frame("event")


async def test_client_that_asks_after_a_change_is_sent_the_change(api_key, reads):
    await Post.objects.acreate(title="old")
    async with AsyncExitStack() as stack:
        sockets = await connect(stack, api_key, 3)
        first, second, third = sockets
        reads.gate.clear()
        await request(first)
        await Post.objects.aupdate(title="new")
        await request(second)
        await request(third)
        reads.gate.set()
        frames = await snapshots(*sockets)
        assert [titles(pages) for pages in frames] == [["old"], ["new"], ["new"]]
        # one for the first client, and one for the two others
        assert reads.count == 2
        (event,) = await events_of(first)
        assert (event["replayed"], event["document"]["data"]["title"]) == (True, "new")
        for socket in (second, third):
            reply = socket.frames_of_type("subscribed")[0]
            assert socket.frames_of_type("snapshot")[0]["cursor"] == reply["cursor"]


async def events_of(socket):
    await socket.wait_for_frame("event")
    return socket.frames_of_type("event")


async def test_change_of_another_row_does_not_prevent_sharing(api_key, reads):
    await Post.objects.acreate(title="shown")
    other = await Post.objects.acreate(title="other", views=5)
    async with AsyncExitStack() as stack:
        sockets = await connect(stack, api_key, 2)
        first, second = sockets
        reads.gate.clear()
        await request(first, filters={"views": 0})
        other.title = "changed"
        await other.asave()
        await request(second, filters={"views": 0})
        reads.gate.set()
        for pages in await snapshots(*sockets):
            assert titles(pages) == ["shown"]
        assert reads.count == 1
        reply = second.frames_of_type("subscribed")[0]
        assert second.frames_of_type("snapshot")[0]["cursor"] == reply["cursor"]
        other.views = 0
        await other.asave()
        for socket in sockets:
            assert [e["document"]["data"]["title"] for e in await events_of(socket)] == ["changed"]


@pytest.mark.parametrize(
    "options", [{"durable": False}, {"serializer": f"{__name__}.serialize"}], ids=str
)
async def test_client_does_not_join_a_read_that_has_begun(api_key, reads, configure, options):
    """Its documents may be older than the request, and no event would correct them."""
    configure(**options)
    await Post.objects.acreate(title="a")
    async with AsyncExitStack() as stack:
        sockets = await connect(stack, api_key, 6)
        reads.gate.clear()
        await request(sockets[0])
        await request(*sockets[1:])
        reads.gate.set()
        assert all(titles(pages) == ["a"] for pages in await snapshots(*sockets))
        assert reads.count == 2
        await Post.objects.acreate(title="live")
        for socket in sockets:
            await socket.wait_for_frame("event")


def serialize(post):
    return {"title": post.title}


async def test_client_that_leaves_does_not_affect_the_others(api_key, reads):
    await Post.objects.acreate(title="a")
    async with AsyncExitStack() as stack:
        sockets = await connect(stack, api_key, 3)
        reads.gate.clear()
        async with open_socket(token=api_key) as leaving:
            await request(leaving)
            await request(*sockets)
        await sockets[0].send_frame(type="unsubscribe", collection="posts")
        await sockets[0].wait_for_frame("unsubscribed")
        reads.gate.set()
        assert all(titles(pages) == ["a"] for pages in await snapshots(*sockets[1:]))
        assert not sockets[0].frames_of_type("snapshot")
        assert reads.count == 1
        assert_same_text(sockets[1:])


async def test_read_without_clients_is_forgotten(api_key, reads, monkeypatch):
    monkeypatch.setattr(shared_snapshots, "JOIN_SECONDS", 0.1)
    async with AsyncExitStack() as stack:
        (staying,) = await connect(stack, api_key, 1)
        await request(staying)
        await snapshots(staying)
        await asyncio.sleep(2 * shared_snapshots.JOIN_SECONDS)
        (topic,) = Hub.current().topics.topics.values()
        shared = topic.shared_snapshots
        assert (shared._reads, shared._kept_bytes) == ({}, 0)
        reads.gate.clear()
        async with open_socket(token=api_key) as leaving:
            await request(leaving)
            assert shared._reads
        assert shared._reads == {}


async def test_failure_is_sent_to_each_and_not_kept(api_key, reads):
    await Post.objects.acreate(title="a")
    async with AsyncExitStack() as stack:
        sockets = await connect(stack, api_key, 4)
        reads.errors = [OperationalError("It does not answer.")]
        reads.gate.clear()
        await request(*sockets[:3])
        reads.gate.set()
        for socket in sockets[:3]:
            await socket.wait_until(lambda socket=socket: socket.close_code is not None)
            assert socket.close_code == CloseCode.UNAVAILABLE
        assert reads.count == 1
        await request(sockets[3])
        assert [titles(pages) for pages in await snapshots(sockets[3])] == [["a"]]


async def test_client_whose_calls_are_too_many_does_not_affect_the_others(api_key, reads):
    await Post.objects.acreate(title="a")
    async with AsyncExitStack() as stack:
        sockets = await connect(stack, api_key, 3)
        reads.errors = [WorkersOverloaded("Too many calls wait.")]
        reads.gate.clear()
        await request(*sockets)
        reads.gate.set()
        assert all(titles(pages) == ["a"] for pages in await snapshots(*sockets))


async def test_client_reads_alone_if_the_read_takes_too_long(api_key, reads, monkeypatch):
    monkeypatch.setattr(shared_snapshots, "MAX_WAIT", 0.2)
    await Post.objects.acreate(title="a")
    async with AsyncExitStack() as stack:
        sockets = await connect(stack, api_key, 2)
        reads.gate.clear()
        await request(*sockets)
        assert all(titles(pages) == ["a"] for pages in await snapshots(*sockets))


@pytest.mark.parametrize("durable", [True, False])
async def test_slow_account_does_not_delay_the_others(
    api_key, reads, monkeypatch, configure, durable
):
    """The others begin one further read together, instead of one each."""
    configure(durable=durable)
    monkeypatch.setattr(shared_snapshots, "MAX_WAIT", 0.2)
    monkeypatch.setattr(shared_snapshots, "MAX_TURN", 0.05)
    monkeypatch.setattr(catchup, "send_snapshot", fail)  # by which a client reads alone
    await Post.objects.acreate(title="a")
    other = (await sync_to_async(ApiKey.objects.create_key)("other"))[1]
    async with AsyncExitStack() as stack:
        (slow,) = await connect(stack, api_key, 1)
        sockets = await connect(stack, other, 10)
        reads.gate.clear()
        reads.blocked = 1
        await request(slow)
        await request(*sockets)
        assert all(titles(pages) == ["a"] for pages in await snapshots(slow, *sockets))
        assert reads.count == 2


async def fail(*args):
    raise AssertionError("A client reads alone.")


async def test_clients_that_are_reconnected_after_an_import_read_again(api_key, reads):
    """The import was not captured, so that no event corrects a snapshot from before it."""
    await Post.objects.acreate(title="old")
    async with AsyncExitStack() as stack:
        key = await ApiKey.objects.aget()
        other = (await sync_to_async(ApiKey.objects.create_key)("other"))[1]
        (first,) = await connect(stack, api_key, 1)
        (staying,) = await connect(stack, other, 1)
        await request(first, staying)
        await snapshots(first, staying)
        with capture_disabled():
            await Post.objects.aupdate(title="imported")
        await sync_to_async(disconnect)(key=key.prefix, reconnect=True)
        await first.wait_until(lambda: first.close_code == CloseCode.PERMISSIONS_CHANGED)
        (again,) = await connect(stack, api_key, 1)
        await request(again)
        assert [titles(pages) for pages in await snapshots(again)] == [["imported"]]


def test_deletion_of_an_unknown_row_may_concern_each_snapshot(configure):
    shared = shared_snapshots.SharedSnapshots(registry.get("posts"), lambda: None, asyncio.sleep)
    filter = parse({"views": 0}, registry.get("posts").schema)
    row = registry.get("posts").codec.image(Post(pk=1, views=5).__dict__)
    for before, concerned in ((None, True), (row, False), (row | {"views": 0}, True)):
        change = Change("", "posts", "deleted", "1", "", "", before=before)
        assert shared._may_concern(filter, change) is concerned


async def test_large_snapshot_is_read_by_each_client(api_key, reads, configure):
    configure(fields=["title", "body"])
    body = "x" * 20_000
    await Post.objects.abulk_create(Post(title=str(n), body=body) for n in range(40))
    async with AsyncExitStack() as stack:
        sockets = await connect(stack, api_key, 3)
        for count in (1, 1):
            await request(*sockets)
            for socket in sockets:
                await socket.wait_until(
                    lambda socket=socket: any(
                        not frame["more"] for frame in socket.frames_of_type("snapshot")
                    )
                )
                assert titles(socket.frames_of_type("snapshot")) == [str(n) for n in range(40)]
                socket.sent.clear()
            assert reads.count == count


async def test_stalled_client_holds_what_it_was_not_sent(api_key, configure):
    """The bytes count for the client, and those that others have been sent are released."""
    configure(fields=["title", "body"])
    body = "x" * 20_000
    await Post.objects.abulk_create(Post(title=str(n), body=body) for n in range(24))
    async with AsyncExitStack() as stack:
        stalled, reading = await connect(stack, api_key, 2)
        # it reads the first page, and stops
        stalled.stops_reading_at = lambda frame: frame["type"] == "snapshot"
        await request(reading, stalled)
        await reading.wait_until(lambda: len(reading.frames_of_type("snapshot")) == 2)
        await asyncio.sleep(2 * shared_snapshots.JOIN_SECONDS)
        by_bytes = sorted(c.writer.waiting_bytes for c in Hub.current().connections.values())
        first, second = (len(json.dumps(f)) for f in reading.frames_of_type("snapshot"))
        assert by_bytes[0] == 0
        assert second - 1000 < by_bytes[1] < second + 1000
        assert first > 200_000
        stalled.reading.set()
        await stalled.wait_until(lambda: len(stalled.frames_of_type("snapshot")) == 2)
        assert titles(stalled.frames_of_type("snapshot")) == [str(n) for n in range(24)]
