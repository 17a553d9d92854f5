"""Rights that change just while something else is under way."""

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
from django_cocobase_realtime.permissions import Permission
from tests.app.models import Post
from tests.support.sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)
HERE = "tests.delivery.test_reauthorization_races"


def posts(settings, permission, **options):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": permission, **options}},
        "REVOCATION_POLL": 3600,  # nothing else notices
    }


def in_thread(function, *args):
    def work():
        try:
            function(*args)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


async def only_connection():
    (connection,) = Hub.current().connections.values()
    return connection


@asynccontextmanager
async def team_member(realtime, user, settings):
    """Watches the posts of the group "red", to which she belongs."""
    posts(settings, "tests.support.permissions.TeamPosts")
    await user.groups.aadd(await Group.objects.acreate(name="red"))
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        yield ada


async def test_rights_that_change_as_soon_as_they_were_asked_for(
    realtime, user, settings, monkeypatch
):
    async with team_member(realtime, user, settings) as ada:
        connection, hub = await only_connection(), Hub.current()
        start = TopicManager.resume

        def start_and_change(self, *args):
            start(self, *args)
            monkeypatch.setattr(TopicManager, "resume", start)
            through = type(user).groups.through.objects
            in_thread(lambda: through.all().delete())  # which sends no signal
            asyncio.get_running_loop().call_soon(hub.reauthorizer.request, [connection])

        monkeypatch.setattr(TopicManager, "resume", start_and_change)
        hub.reauthorizer.request([connection])
        assert await ada.closed() == 4201


async def test_a_subscription_that_comes_as_rights_are_known_again_is_started(
    realtime, user, settings, monkeypatch
):
    """Its request was under way while they were asked for, and ends in the same turn."""
    async with team_member(realtime, user, settings) as ada:
        connection, hub = await only_connection(), Hub.current()
        start, prepare = TopicManager.resume, TopicManager.open
        prepared = asyncio.Event()

        async def prepare_late(self, collection):
            extent = await prepare(self, collection)
            hub.reauthorizer.request([connection])
            await prepared.wait()
            return extent

        def start_and_go_on(self, *args):
            start(self, *args)
            monkeypatch.setattr(TopicManager, "resume", start)
            prepared.set()

        monkeypatch.setattr(TopicManager, "open", prepare_late)
        monkeypatch.setattr(TopicManager, "resume", start_and_go_on)
        await ada.subscribe("posts", subscription="second")
        await Post.objects.acreate(title="x", project="red")
        told = set()
        async with asyncio.timeout(5):
            while told != {"posts", "second"}:
                frame = await ada.receive()
                if frame["type"] == "event":
                    told |= set(frame["subscriptions"])


async def test_a_room_is_not_joined_by_rights_of_before(realtime, user, settings):
    settings.COCOBASE_REALTIME = {"REVOCATION_POLL": 3600}
    asked, go_on = threading.Event(), threading.Event()

    class Slow(Room):
        def can_join(self, identity, room):
            member = identity.user.groups.filter(name="red").exists()
            asked.set()
            go_on.wait(10)
            return member

    red = await Group.objects.acreate(name="red")
    await user.groups.aadd(red)
    room_registry.register("slow", Slow)
    try:
        async with realtime(user=user) as ada:
            await ada.send({"type": "join", "room": "slow"})
            await asyncio.to_thread(asked.wait, 5)
            await user.groups.aremove(red)
            await asyncio.sleep(0.3)  # every process has heard of it
            go_on.set()
            assert (await ada.receive("error"))["code"] == "forbidden"
    finally:
        go_on.set()
        room_registry.unregister("slow")


class Waits(Permission):
    """Once ``hold`` is set, asks until ``go_on`` is."""

    hold, go_on = threading.Event(), threading.Event()

    def can_subscribe(self, identity, filters):
        if self.hold.is_set():
            self.go_on.wait(10)
        return True


class WaitsAndLooks(Waits):
    def has_object_permission(self, identity, post):
        return post.views < 10


@pytest.fixture
def waits():
    Waits.hold.clear()
    Waits.go_on.clear()
    yield Waits
    Waits.go_on.set()


@pytest.mark.parametrize("permission", ["Waits", "WaitsAndLooks"])
@pytest.mark.parametrize("wanted", [True, False])
async def test_without_a_log_nothing_is_lost_while_rights_are_asked_for(
    realtime, user, settings, waits, permission, wanted
):
    posts(settings, f"{HERE}.{permission}", durable=False)
    async with realtime(user=user) as ada:
        await ada.subscribe("posts", snapshot=wanted)
        if wanted:
            await ada.receive("snapshot")
        await Post.objects.acreate(title="before")
        assert (await ada.receive("event"))["document"]["data"]["title"] == "before"
        waits.hold.set()
        await sync_to_async(permissions_changed)(user)
        await asyncio.sleep(0.2)
        await Post.objects.acreate(title="meanwhile")
        assert await ada.receive_nothing(0.3)
        waits.go_on.set()
        assert (await ada.receive("event"))["document"]["data"]["title"] == "meanwhile"
        await Post.objects.acreate(title="after")
        assert (await ada.receive("event"))["document"]["data"]["title"] == "after"
        assert await ada.receive_nothing()


@pytest.mark.parametrize("durable", [True, False])
async def test_a_snapshot_that_begins_anew_leaves_no_ghosts(
    user, settings, waits, monkeypatch, durable
):
    """Rights are looked at within it; a document of its first page is gone by the second try."""
    posts(settings, f"{HERE}.Waits", durable=durable)
    monkeypatch.setattr(snapshot, "PAGE_SIZE", 1)
    a, b, _ = [await Post.objects.acreate(title=title) for title in "abc"]
    async with open_socket(user=user) as socket:
        socket.stops_reading_at = lambda frame: frame["type"] == "snapshot"
        await socket.send_frame(type="subscribe", collection="posts", snapshot={"order": "title"})
        await socket.wait_for_frame("snapshot")
        waits.hold.set()
        await sync_to_async(permissions_changed)(user)
        await asyncio.sleep(0.2)
        gone = str(a.pk)
        await a.adelete()
        b.title = "b2"
        await b.asave()
        await asyncio.sleep(0.3)
        socket.reading.set()
        waits.go_on.set()
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
                known |= {each["id"]: each["data"]["title"] for each in frame["documents"]}
            elif frame["event"] == "deleted":
                known.pop(frame["document"]["id"], None)
            else:
                known[frame["document"]["id"]] = frame["document"]["data"]["title"]
        assert gone not in known
        assert sorted(known.values()) == ["b2", "c", "d"]


class Gated(Waits):
    """The first look at a row of this title waits for its gate."""

    gates: dict[str, threading.Event] = {}

    def has_object_permission(self, identity, post):
        gate = self.gates.pop(post.title, None)
        if gate is not None:
            gate.wait(10)
        return True


async def test_a_row_whose_check_is_late_is_not_taken_for_a_later_one(
    realtime, user, settings, waits
):
    posts(settings, f"{HERE}.Gated")
    first, second = Gated.gates["1"], Gated.gates["2"] = threading.Event(), threading.Event()
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        await Post.objects.acreate(title="1")
        async with asyncio.timeout(5):
            while "1" in Gated.gates:
                await asyncio.sleep(0.01)
        await sync_to_async(permissions_changed)(user)  # it goes on by reading the log
        assert (await ada.receive("event"))["document"]["data"]["title"] == "1"
        await Post.objects.acreate(title="2")
        await asyncio.sleep(0.2)
        first.set()
        async with asyncio.timeout(5):
            while "2" in Gated.gates:
                await asyncio.sleep(0.01)
        waits.hold.set()
        await sync_to_async(permissions_changed)(user)
        await asyncio.sleep(0.2)
        second.set()  # decided while nothing may be told
        await asyncio.sleep(0.2)
        waits.go_on.set()
        frames = []
        while not await ada.receive_nothing(0.5):
            frames.append(await ada.receive())
        titles = [f["document"]["data"]["title"] for f in frames if f["type"] == "event"]
        assert titles[-1:] == ["2"]
