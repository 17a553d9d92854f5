"""Rooms deliver nothing and accept nothing while permissions are evaluated again."""

import asyncio
import threading
import time

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime import Room, abroadcast, permissions_changed
from django_cocobase_realtime.declarations.registry import room_registry
from django_cocobase_realtime.hub import reauthorization
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.permissions import Permission
from tests.support.blocking_permissions import Gate
from tests.support.tokens import KEY, create_token

pytestmark = pytest.mark.django_db(transaction=True)
create_key = sync_to_async(ApiKey.objects.create_key)
GATED = "tests.support.blocking_permissions.BlockingRoomPermission"


class Slow(Permission):
    def can_subscribe(self, identity, filters):
        time.sleep(0.03)
        return True


class Blocked(Permission):
    """Answers at once, or waits while ``free`` is not set."""

    free = threading.Event()

    def can_subscribe(self, identity, filters):
        self.free.wait(10)
        return True


@pytest.fixture(autouse=True)
def _configure(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": f"{__name__}.Slow"},
            "messages": {"model": "app.Message", "permission": f"{__name__}.Blocked"},
        },
        "ROOMS": {"board": {"permission": GATED}, "kept": {"permission": GATED, "history": 9}}
        | {"*": {}},
        "JWT": {"KEY": KEY},
        "REVOCATION_POLL": 3600,
    }
    Gate.allows, Gate.blocks = True, False
    Blocked.free.set()
    yield
    Gate.allows, Gate.blocks = True, False
    Gate.release.set()
    Blocked.free.set()


@pytest.fixture
def bob(transactional_db, django_user_model):
    return django_user_model.objects.create_user("bob")


async def changed(user):
    await sync_to_async(permissions_changed)(user)


async def wait_for(event):
    assert await asyncio.to_thread(event.wait, 5)


async def frames_until_closed(client):
    """Return the frames that arrive before the frame `closing`, and its code."""
    frames = []
    while (frame := await client.receive())["type"] != "closing":
        frames.append(frame)
    return frames, frame["code"]


@pytest.mark.parametrize("how", ["auth", "unsubscribe", "permissions_changed"])
async def test_removed_member_gets_and_writes_nothing_more(realtime, user, bob, how):
    """Neither the client nor others can prolong its access during the evaluation."""
    async with realtime(user=bob) as other, realtime(token=create_token(user)) as ada:
        await other.join("board")
        await ada.join("board")
        await other.receive("presence")
        for number in range(5):
            await ada.subscribe("messages", subscription=str(number))
        Blocked.free.clear()  # the evaluation would not end
        Gate.block_next()
        Gate.allows = False
        await changed(user)
        await wait_for(Gate.entered)
        for number in range(5):
            await abroadcast("board", "secret")
            if how == "auth":
                await ada.send({"type": "auth", "token": create_token(user, 1000 + number)})
            elif how == "unsubscribe":
                await ada.send({"type": "unsubscribe", "subscription": str(number)})
            elif number < 2:
                await changed(user)
            if number == 3:
                await ada.send({"type": "broadcast", "room": "board", "message": "written"})
                await ada.send({"type": "state", "room": "board", "state": {"text": "written"}})
        await asyncio.sleep(0.2)
        Gate.release.set()
        frames, code = await frames_until_closed(ada)
        assert code == 4201
        assert {frame["type"] for frame in frames} <= {"authenticated", "unsubscribed"}
        assert [(await other.receive("event"))["message"] for _ in range(5)] == ["secret"] * 5
        assert await other.receive_nothing()


async def test_unchanged_permission_delays_but_loses_nothing(realtime, user, bob):
    async with (
        realtime(user=user) as ada,
        realtime(user=bob) as other,
        realtime(user=bob) as watcher,
    ):
        for room in ("board", "kept", "plain"):
            await ada.join(room)
        await watcher.join("plain")
        await other.join("board")
        for _ in "ab":
            await ada.receive("presence")
        Gate.block_next()
        await changed(user)
        await wait_for(Gate.entered)
        await ada.send({"type": "broadcast", "room": "board", "message": 4, "id": 1})
        for number in range(3):
            await abroadcast(("board", "kept", "plain")[number], number)
        assert (await other.receive())["message"] == 0
        await other.send({"type": "leave", "room": "board"})
        await other.receive("left")
        await abroadcast("plain", 3)
        assert await ada.receive_nothing(0.3)
        Gate.release.set()
        frames = [await ada.receive() for _ in range(7)]
        assert [f.get("message", f["type"]) for f in frames] == [0, 1, 2, "presence", 3, 4, "sent"]
        await abroadcast("plain", 5)
        assert (await ada.receive())["message"] == 5
        # the member did not leave and join in between
        assert [(await watcher.receive("event"))["message"] for _ in range(3)] == [2, 3, 5]


async def test_rooms_go_on_while_subscriptions_are_evaluated(realtime, user):
    async with realtime(user=user) as ada:
        await ada.subscribe("messages")
        await ada.join("board")
        Blocked.free.clear()
        await changed(user)
        await abroadcast("board", "news")
        assert (await ada.receive())["message"] == "news"
        reply = await ada.request({"type": "broadcast", "room": "board", "message": 1, "id": 1})
        assert reply["type"] in ("event", "sent")
        Blocked.free.set()


async def test_frames_of_a_room_that_was_left_are_not_sent(realtime, user):
    async with realtime(user=user) as ada:
        await ada.join("plain")
        await ada.join("board")
        Gate.block_next()
        await changed(user)
        await wait_for(Gate.entered)
        await abroadcast("plain", "late")
        await abroadcast("board", "news")
        await ada.send({"type": "leave", "room": "plain"})
        await ada.receive("left")
        Gate.release.set()
        assert (await ada.receive())["message"] == "news"
        assert await ada.receive_nothing()


async def test_held_frames_are_bounded(realtime, user, settings):
    settings.COCOBASE_REALTIME |= {"LIMITS": {"queue_messages": 20}}
    async with realtime(user=user) as ada:
        await ada.join("board")
        Gate.block_next()
        await changed(user)
        await wait_for(Gate.entered)
        for number in range(25):
            await abroadcast("board", number)
        assert await ada.closed() == 4120


async def test_permission_lost_during_a_join_hides_the_members(realtime, user):
    titled, go_on = threading.Event(), threading.Event()

    class Titled(Room):
        def can_join(self, identity, room):
            return Gate.answer()

        def get_title(self, room):
            titled.set()
            go_on.wait(5)
            return "title"

    room_registry.register("titled", Titled)
    try:
        async with realtime(user=user) as ada:
            await ada.send({"type": "join", "room": "titled"})
            await wait_for(titled)
            Gate.block_next()
            Gate.allows = False
            await changed(user)
            await wait_for(Gate.entered)
            go_on.set()
            assert await ada.receive_nothing(0.3)
            Gate.release.set()
            assert await frames_until_closed(ada) == ([], 4201)
    finally:
        go_on.set()
        room_registry.unregister("titled")


@pytest.mark.parametrize("scope", [{"read_only": True}, {"rooms": ["other"]}], ids=str)
async def test_write_behind_auth_with_a_narrower_key_is_refused(realtime, user, bob, scope):
    wide = (await create_key("wide", user=user))[1]
    narrow = (await create_key("narrow", user=user, **scope))[1]
    async with realtime(user=bob) as other, realtime(token=wide) as ada:
        await other.join("plain")
        await ada.join("plain")
        await other.receive("presence")
        await ada.send({"type": "auth", "token": narrow})
        await ada.send({"type": "broadcast", "room": "plain", "message": "written"})
        await ada.send({"type": "state", "room": "plain", "state": {"a": 1}})
        assert (await frames_until_closed(ada))[1] == 4201
        assert await other.receive_nothing()


async def test_permissions_that_change_all_the_time_close_the_connection(
    realtime, user, monkeypatch
):
    monkeypatch.setattr(reauthorization, "MAX_SECONDS", 0.5)
    async with realtime(user=user) as ada:
        await ada.join("plain")
        for number in range(3):
            await ada.subscribe("posts", subscription=str(number))
        connections = list(Hub.current().connections.values())

        async def change():
            while True:
                Hub.current().reauthorizer.request(connections)
                await asyncio.sleep(0.005)

        changing = asyncio.create_task(change())
        try:
            assert await ada.closed() == 4201
        finally:
            changing.cancel()
