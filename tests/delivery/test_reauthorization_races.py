"""Permissions that change while something else is in progress."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import connections

from django_cocobase_realtime import Room, permissions_changed
from django_cocobase_realtime.declarations.registry import room_registry
from django_cocobase_realtime.delivery import snapshot
from django_cocobase_realtime.delivery.topics import TopicManager
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.hub.reauthorization import Reauthorizer
from django_cocobase_realtime.permissions import Permission
from tests.app.models import Post
from tests.support.frames import receive_title
from tests.support.sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)
HERE = "tests.delivery.test_reauthorization_races"


def posts(settings, permission, **options):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": permission, **options}},
        "REVOCATION_POLL": 3600,  # changes are not noticed by polling
    }


def in_thread(function, *args):
    def run():
        try:
            function(*args)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


async def get_only_connection():
    (connection,) = Hub.current().connections.values()
    return connection


async def receive_for(client, names):
    """Read frames until all of these subscriptions have got an event, and no other one has."""
    subscriptions = set()
    async with asyncio.timeout(5):
        while subscriptions != names:
            frame = await client.receive()
            if frame["type"] == "event":
                subscriptions |= set(frame["subscriptions"])


@asynccontextmanager
async def team_member(realtime, user, settings, **options):
    """Open a connection of a member of group "red" that is subscribed to the group's posts."""
    posts(settings, "tests.support.permissions.TeamPosts", **options)
    await user.groups.aadd(await Group.objects.acreate(name="red"))
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        yield ada


async def test_permission_lost_right_after_reauthorization_is_noticed(
    realtime, user, settings, monkeypatch
):
    async with team_member(realtime, user, settings) as ada:
        connection, hub = await get_only_connection(), Hub.current()
        start = TopicManager.resume

        def start_and_change(self, *args, **options):
            start(self, *args, **options)
            monkeypatch.setattr(TopicManager, "resume", start)
            through = type(user).groups.through.objects
            in_thread(lambda: through.all().delete())  # sends no signal
            asyncio.get_running_loop().call_soon(hub.reauthorizer.request, [connection])

        monkeypatch.setattr(TopicManager, "resume", start_and_change)
        hub.reauthorizer.request([connection])
        assert await ada.closed() == 4201


async def test_subscription_prepared_during_reauthorization_is_started(
    realtime, user, settings, monkeypatch
):
    """Its request started during the reauthorization and ends in the same turn of the loop."""
    async with team_member(realtime, user, settings) as ada:
        connection, hub = await get_only_connection(), Hub.current()
        start, open_topic = TopicManager.resume, TopicManager.open
        released = asyncio.Event()

        async def open_late(self, collection):
            extent = await open_topic(self, collection)
            hub.reauthorizer.request([connection])
            await released.wait()
            return extent

        def start_and_release(self, *args, **options):
            start(self, *args, **options)
            monkeypatch.setattr(TopicManager, "resume", start)
            released.set()

        monkeypatch.setattr(TopicManager, "open", open_late)
        monkeypatch.setattr(TopicManager, "resume", start_and_release)
        await ada.subscribe("posts", subscription="second")
        await Post.objects.acreate(title="x", project="red")
        await receive_for(ada, {"posts", "second"})


@pytest.mark.parametrize("durable", [True, False])
async def test_event_before_a_prepared_subscription_is_started_is_not_lost(
    realtime, user, settings, monkeypatch, durable
):
    """Its client has got the reply already when its permission is evaluated again."""
    opened, released = asyncio.Event(), asyncio.Event()
    evaluate, open_topic = Reauthorizer._evaluate, TopicManager.open

    async def evaluate_late(self, connection, evaluated):
        if opened.is_set():  # not what the new membership in the group causes
            await released.wait()
        return await evaluate(self, connection, evaluated)

    async def open_and_request(self, name):
        extent = await open_topic(self, name)
        opened.set()
        Hub.current().reauthorizer.request([connection])
        return extent

    async with team_member(realtime, user, settings, durable=durable) as ada:
        connection = await get_only_connection()
        monkeypatch.setattr(Reauthorizer, "_evaluate", evaluate_late)
        monkeypatch.setattr(TopicManager, "open", open_and_request)
        await ada.subscribe("posts", subscription="second")
        async with realtime(user=user) as witness:
            monkeypatch.setattr(TopicManager, "open", open_topic)
            await witness.subscribe("posts")
            await Post.objects.acreate(title="x", project="red")
            assert await receive_title(witness) == "x"
        released.set()
        await receive_for(ada, {"posts", "second"})


async def test_join_uses_permissions_changed_during_its_check(realtime, user, settings):
    settings.COCOBASE_REALTIME = {"REVOCATION_POLL": 3600}
    checking, release = threading.Event(), threading.Event()

    class BlockingRoom(Room):
        def can_join(self, identity, room):
            member = identity.user.groups.filter(name="red").exists()
            checking.set()
            release.wait(10)
            return member

    red = await Group.objects.acreate(name="red")
    await user.groups.aadd(red)
    room_registry.register("slow", BlockingRoom)
    try:
        async with realtime(user=user) as ada:
            await ada.send({"type": "join", "room": "slow"})
            await asyncio.to_thread(checking.wait, 5)
            await user.groups.aremove(red)
            await asyncio.sleep(0.3)  # every process has received the change
            release.set()
            assert (await ada.receive("error"))["code"] == "forbidden"
    finally:
        release.set()
        room_registry.unregister("slow")


class BlockingPermission(Permission):
    """Once ``hold`` is set, the check waits until ``release`` is set."""

    hold, release = threading.Event(), threading.Event()

    def can_subscribe(self, identity, filters):
        if self.hold.is_set():
            self.release.wait(10)
        return True


class BlockingRowPermission(BlockingPermission):
    def has_object_permission(self, identity, post):
        return post.views < 10


@pytest.fixture
def blocking():
    BlockingPermission.hold.clear()
    BlockingPermission.release.clear()
    yield BlockingPermission
    BlockingPermission.release.set()


@pytest.mark.parametrize("permission", ["BlockingPermission", "BlockingRowPermission"])
@pytest.mark.parametrize("with_snapshot", [True, False])
async def test_no_event_is_lost_during_reauthorization_without_log(
    realtime, user, settings, blocking, permission, with_snapshot
):
    posts(settings, f"{HERE}.{permission}", durable=False)
    async with realtime(user=user) as ada:
        await ada.subscribe("posts", snapshot=with_snapshot)
        if with_snapshot:
            await ada.receive("snapshot")
        await Post.objects.acreate(title="before")
        assert (await ada.receive("event"))["document"]["data"]["title"] == "before"
        blocking.hold.set()
        await sync_to_async(permissions_changed)(user)
        await asyncio.sleep(0.2)
        await Post.objects.acreate(title="during the check")
        assert await ada.receive_nothing(0.3)
        blocking.release.set()
        assert (await ada.receive("event"))["document"]["data"]["title"] == "during the check"
        await Post.objects.acreate(title="after")
        assert (await ada.receive("event"))["document"]["data"]["title"] == "after"
        assert await ada.receive_nothing()


@pytest.mark.parametrize("durable", [True, False])
async def test_snapshot_restarted_by_reauthorization_has_no_deleted_document(
    user, settings, blocking, monkeypatch, durable
):
    """A document of its first page is deleted before the snapshot is started again."""
    posts(settings, f"{HERE}.BlockingPermission", durable=durable)
    monkeypatch.setattr(snapshot, "PAGE_SIZE", 1)
    a, b, _ = [await Post.objects.acreate(title=title) for title in "abc"]
    async with open_socket(user=user) as socket:
        socket.stops_reading_at = lambda frame: frame["type"] == "snapshot"
        await socket.send_frame(type="subscribe", collection="posts", snapshot={"order": "title"})
        await socket.wait_for_frame("snapshot")
        blocking.hold.set()
        await sync_to_async(permissions_changed)(user)
        await asyncio.sleep(0.2)
        deleted = str(a.pk)
        await a.adelete()
        b.title = "b2"
        await b.asave()
        await asyncio.sleep(0.3)
        socket.reading.set()
        blocking.release.set()
        await socket.wait_until(
            lambda: any(not f["more"] for f in socket.frames_of_type("snapshot"))
        )
        await Post.objects.acreate(title="d")
        await socket.wait_until(
            lambda: any(
                f["document"]["data"].get("title") == "d" for f in socket.frames_of_type("event")
            )
        )
        known = {}
        for frame in socket.frames_of_type("snapshot", "event"):
            if frame["type"] == "snapshot":
                known |= {
                    document["id"]: document["data"]["title"] for document in frame["documents"]
                }
            elif frame["event"] == "deleted":
                known.pop(frame["document"]["id"], None)
            else:
                known[frame["document"]["id"]] = frame["document"]["data"]["title"]
        assert deleted not in known
        assert sorted(known.values()) == ["b2", "c", "d"]


class TitleGated(BlockingPermission):
    """The first check of a row waits for the gate of its title."""

    gates: dict[str, threading.Event] = {}

    def has_object_permission(self, identity, post):
        gate = self.gates.pop(post.title, None)
        if gate is not None:
            gate.wait(10)
        return True


async def test_late_row_check_is_not_used_for_a_later_event(realtime, user, settings, blocking):
    posts(settings, f"{HERE}.TitleGated")
    first, second = TitleGated.gates["1"], TitleGated.gates["2"] = (
        threading.Event(),
        threading.Event(),
    )
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        await Post.objects.acreate(title="1")
        async with asyncio.timeout(5):
            while "1" in TitleGated.gates:
                await asyncio.sleep(0.01)
        await sync_to_async(permissions_changed)(user)  # delivery continues by reading the log
        assert (await ada.receive("event"))["document"]["data"]["title"] == "1"
        await Post.objects.acreate(title="2")
        await asyncio.sleep(0.2)
        first.set()
        async with asyncio.timeout(5):
            while "2" in TitleGated.gates:
                await asyncio.sleep(0.01)
        blocking.hold.set()
        await sync_to_async(permissions_changed)(user)
        await asyncio.sleep(0.2)
        second.set()  # the check ends while delivery is suspended
        await asyncio.sleep(0.2)
        blocking.release.set()
        frames = []
        while not await ada.receive_nothing(0.5):
            frames.append(await ada.receive())
        titles = [f["document"]["data"]["title"] for f in frames if f["type"] == "event"]
        assert titles[-1:] == ["2"]
