"""Rooms as their members see them, in one process: presence, states, history, permissions."""

import asyncio
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from django_cocobase_realtime import (
    Room,
    abroadcast,
    broadcast,
    permissions_changed,
    register_room,
    send_to_user,
)
from django_cocobase_realtime.models import (
    ApiKey,
    PresenceConnection,
    PresenceRoom,
    PresenceServer,
    RoomMessage,
)
from django_cocobase_realtime.room import room_registry
from django_cocobase_realtime.rooms import presence as backends

SHORT = {"GRACE": 0.6, "LEASE": 3}


class Door:
    """Users may join; only staff speaks; names of members are for users called ada."""

    def can_join(self, identity, room):
        return identity.user_id is not None and not room.endswith("closed")

    def can_broadcast(self, identity, room):
        return identity.user.is_staff

    def can_see_members(self, identity, room):
        return identity.name == "ada"


@pytest.fixture(params=["database", "memory"])
def presence(request, settings):
    settings.COCOBASE_REALTIME = {"PRESENCE": {"BACKEND": request.param, **SHORT}}
    backends._backend.cache_clear()


@pytest.fixture
def bob(transactional_db, django_user_model):
    return django_user_model.objects.create_user("bob", is_staff=True)


def configure(settings, rooms, **more):
    settings.COCOBASE_REALTIME = {"ROOMS": rooms, "PRESENCE": SHORT, **more}


async def presence_of(client):
    frame = await client.receive("presence")
    return frame["event"], frame["member"]["name"], frame["participants"]


async def test_one_person_on_three_tabs(realtime, user, bob, presence):
    async with realtime(user=bob) as watcher:
        await watcher.join("r")
        async with realtime(user=user) as first, realtime(user=user) as second:
            assert (await first.join("r"))["participants"] == 2
            assert await presence_of(watcher) == ("joined", "ada", 2)
            reply = await second.join("r")
            assert reply["participants"] == 2
            assert [m["name"] for m in reply["members"]] == ["bob", "ada"]
            async with realtime(user=user) as third:
                await third.join("r")
            await second.send({"type": "leave", "room": "r"})
            await second.receive("left")
            assert await watcher.receive_nothing(1.5)  # two of three are gone
            assert await first.receive_nothing()
        assert await presence_of(watcher) == ("left", "ada", 1)
        assert await watcher.receive_nothing()


async def test_a_reconnect_within_the_grace_is_no_departure(realtime, user, bob, presence):
    async with realtime(user=bob) as watcher:
        await watcher.join("r")
        async with realtime(user=user) as ada:
            await ada.join("r", state={"mood": "fine"})
            assert await presence_of(watcher) == ("joined", "ada", 2)
        await asyncio.sleep(0.2)
        async with realtime(user=user) as ada:
            reply = await ada.join("r")
            assert {"id": str(user.pk), "name": "ada", "state": {"mood": "fine"}} in reply[
                "members"
            ]
            assert await watcher.receive_nothing(1.5)
            await ada.send({"type": "leave", "room": "r"})
            assert await presence_of(watcher) == ("left", "ada", 1)


async def test_who_has_no_user_leaves_at_once(realtime, api_key, user, presence):
    async with realtime(user=user) as watcher:
        await watcher.join("r")
        async with realtime(token=api_key) as one, realtime(token=api_key) as two:
            assert (await one.join("r"))["participants"] == 2
            assert (await two.join("r"))["participants"] == 3
            assert [(await presence_of(watcher))[2] for _ in "ab"] == [2, 3]
        gone = {(await presence_of(watcher))[0] for _ in "ab"}
        assert gone == {"left"}


async def test_states(realtime, user, bob, presence, settings):
    async with realtime(user=bob) as watcher, realtime(user=user) as ada:
        await watcher.join("r")
        reply = await ada.request({"type": "state", "room": "r", "state": {}})
        assert reply["code"] == "not_joined"
        await ada.join("r", state={"typing": False})
        frame = await watcher.receive("presence")
        assert frame["member"]["state"] == {"typing": False}
        reply = await ada.request(
            {"type": "state", "room": "r", "state": {"typing": True}, "id": 5}
        )
        assert reply == {"type": "state", "room": "r", "id": 5}
        frame = await watcher.receive("presence")
        assert (frame["event"], frame["member"]["state"]) == ("updated", {"typing": True})
        # the same again is no news
        await ada.request({"type": "state", "room": "r", "state": {"typing": True}, "id": 6})
        reply = await ada.request({"type": "state", "room": "r", "state": {"x": "y" * 1100}})
        assert reply["code"] == "too_large"
        reply = await ada.request({"type": "join", "room": "q", "state": {"x": "y" * 1100}})
        assert reply["code"] == "too_large"
        assert await watcher.receive_nothing()
        assert await ada.receive_nothing()


async def test_unlisted(realtime, user, bob, presence):
    async with realtime(user=bob) as watcher, realtime(user=user) as ghost:
        reply = await ghost.join("r", presence=False)
        assert (reply["participants"], reply["members"]) == (0, [])
        assert (await watcher.join("r"))["participants"] == 1
        assert await presence_of(ghost) == ("joined", "bob", 1)
        reply = await ghost.request({"type": "state", "room": "r", "state": {}})
        assert reply["code"] == "forbidden"
        await ghost.send({"type": "broadcast", "room": "r", "message": "boo"})
        assert (await watcher.receive("event"))["message"] == "boo"
        await ghost.receive("event")
        # shows himself, and hides again
        assert (await ghost.join("r"))["participants"] == 2
        assert await presence_of(watcher) == ("joined", "ada", 2)
        assert (await ghost.join("r", presence=False))["participants"] == 1
        assert await presence_of(watcher) == ("left", "ada", 1)
        await ghost.send({"type": "leave", "room": "r"})
        await ghost.receive("left")
        assert await watcher.receive_nothing()


async def test_a_kicked_user_does_not_linger(realtime, user, bob, presence):
    from django_cocobase_realtime import disconnect

    async with realtime(user=bob) as watcher, realtime(user=user) as ada:
        await watcher.join("r")
        await ada.join("r")
        assert await presence_of(watcher) == ("joined", "ada", 2)
        await sync_to_async(disconnect)(user=user)
        assert await ada.closed() == 4500
        frame = await watcher.receive("presence", timeout=2)
        assert frame["event"] == "left"


async def test_permissions(realtime, user, bob, api_key, settings):
    configure(settings, {"hall-*": {"permission": f"{__name__}.Door", "title": "The Hall"}})
    async with realtime(user=user) as ada, realtime(user=bob) as staff:
        async with realtime(token=api_key) as stranger:
            answers = [
                await stranger.request({"type": "join", "room": room, "id": 1})
                for room in ("hall-1", "hall-closed", "nowhere")
            ]
        assert {a["code"] for a in answers} == {"forbidden"}
        texts = {
            a["message"].replace(room, "?")
            for a, room in zip(answers, ("hall-1", "hall-closed", "nowhere"), strict=True)
        }
        assert len(texts) == 1
        assert (await ada.join("hall-1"))["title"] == "The Hall"
        reply = await staff.join("hall-1")
        assert (reply["participants"], reply["members"]) == (2, [])
        assert await presence_of(ada) == ("joined", "bob", 2)
        say = {"type": "broadcast", "room": "hall-1", "message": "hi", "id": 2}
        assert (await ada.request(say))["code"] == "forbidden"
        await staff.send(say)
        assert (await ada.receive("event"))["message"] == "hi"
        assert {(await staff.receive())["type"] for _ in "ab"} == {"event", "sent"}
        await ada.send({"type": "leave", "room": "hall-1"})
        await ada.receive("left")
        assert await staff.receive_nothing()  # who may not see members hears of none


async def test_rights_that_change_count_at_once(realtime, user, bob, settings):
    configure(settings, {"hall-*": {"permission": f"{__name__}.Door"}, "*": {}})
    async with realtime(user=user) as ada, realtime(user=bob) as staff:
        await ada.join("lobby")
        await staff.join("hall-1")
        bob.is_staff = False
        await bob.asave()
        assert await staff.closed() == 4201
        user.first_name = "Ada"
        await user.asave()
        await sync_to_async(permissions_changed)(user)
        assert (await ada.request({"type": "ping"}))["type"] == "pong"


async def test_a_class_decides(realtime, user, bob, settings):
    configure(settings, {})

    @register_room("own-*")
    class Own(Room):
        history = 2

        def can_join(self, identity, room):
            return room == f"own-{identity.user_id}"

    try:
        async with realtime(user=user) as ada:
            await ada.join(f"own-{user.pk}")
            reply = await ada.request({"type": "join", "room": f"own-{bob.pk}"})
            assert reply["code"] == "forbidden"
    finally:
        room_registry.unregister("own-*")


async def test_a_history_of_long_broadcasts_is_read_up_to_a_bound(
    realtime, user, settings, monkeypatch
):
    """Many who join at once and read slowly must not fill the memory with what was said."""
    configure(settings, {"*": {"history": 300}})
    monkeypatch.setattr("django_cocobase_realtime.rooms.history.BYTES", 3000)
    async with realtime(user=user) as ada:
        start = (await ada.join("r"))["cursor"]
        for number in range(70):
            await abroadcast("r", f"{number}" if number < 60 else f"{number} " + "x" * 1000)
        last = [await ada.receive("event") for _ in range(70)][-1]["cursor"]
    async with realtime(user=user) as ada:
        await ada.join("r", history=300)
        said = [(await ada.receive("event"))["message"][:3] for _ in "ab"]
        assert said == ["68 ", "69 "]
        assert await ada.receive_nothing()
        await ada.send({"type": "leave", "room": "r"})
        await ada.receive("left")
        reply = await ada.join("r", since=start)
        assert (reply["resumed"], reply["resync"]) == (False, {"reason": "replay_limit"})
        assert reply["cursor"] == last
        assert await ada.receive_nothing()


async def test_history(realtime, user, bob, settings):
    configure(settings, {"chat-*": {"history": 3}, "*": {}})
    async with realtime(user=bob) as staff:
        reply = await staff.join("chat-1", history=10)
        start = reply["cursor"]
        for number in range(5):
            await staff.send({"type": "broadcast", "room": "chat-1", "message": number})
        await staff.send(
            {"type": "broadcast", "room": "chat-1", "message": "typing", "ephemeral": True}
        )
        events = [await staff.receive("event") for _ in range(6)]
        assert [e["message"] for e in events] == [0, 1, 2, 3, 4, "typing"]
        assert "cursor" not in events[5]
        assert len({e["cursor"] for e in events[:5]}) == 5
        await sync_to_async(broadcast)("chat-1", "from the server")
        events.append(await staff.receive("event"))
        async with realtime(user=user) as ada:
            reply = await ada.join("chat-1", history=2)
            assert reply["cursor"] == events[6]["cursor"]
            past = [await ada.receive("event") for _ in range(2)]
            assert [e["message"] for e in past] == [4, "from the server"]
            assert all(e["replayed"] for e in past)
            assert past[0]["cursor"] == events[4]["cursor"]
            assert past[0]["sender"] == {"id": str(bob.pk), "name": "bob", "verified": True}
            await ada.send({"type": "leave", "room": "chat-1"})
            await ada.receive("left")
            # since a cursor: all after it
            reply = await ada.join("chat-1", since=events[3]["cursor"])
            assert reply["resumed"] is True
            assert [(await ada.receive("event"))["message"] for _ in "ab"] == [
                4,
                "from the server",
            ]
            for since, reason in [
                (start, "retention"),
                ("nonsense", "invalid_cursor"),
                (events[3]["cursor"].rpartition(".")[0] + ".999", "ahead_of_head"),
                (start.replace(start.split(".")[1], "abcdef01"), "epoch_changed"),
            ]:
                reply = await ada.join("chat-1", since=since, history=1)
                assert (reply["resumed"], reply["resync"]) == (False, {"reason": reason})
                assert (await ada.receive("event"))["message"] == "from the server"
            reply = await ada.join("elsewhere", history=5, since=start)
            assert reply["resync"] == {"reason": "not_kept"}
            assert "cursor" not in reply
            assert await ada.receive_nothing()
    assert await RoomMessage.objects.acount() == 3


async def test_what_is_said_while_the_past_is_read_comes_once(
    realtime, user, settings, monkeypatch
):
    from django_cocobase_realtime.rooms import history

    configure(settings, {"*": {"history": 10}})
    look = history.look

    def slow_look(*args):
        broadcast("r", "early")  # kept, and on its way
        time.sleep(0.3)
        past = look(*args)
        broadcast("r", "late")
        time.sleep(0.3)
        return past

    monkeypatch.setattr(history, "look", slow_look)
    async with realtime(user=user) as ada:
        await ada.join("r", history=5)
        early, late = await ada.receive("event"), await ada.receive("event")
        assert (early["message"], early.get("replayed")) == ("early", True)
        assert (late["message"], late.get("replayed")) == ("late", None)
        assert await ada.receive_nothing()


async def test_a_durable_room_tells_what_the_layer_lost(realtime, user, settings):
    """Messages that no layer carried: from another process, or lost on the way."""
    from django_cocobase_realtime.events import Broadcast, now
    from django_cocobase_realtime.rooms import history

    configure(settings, {"*": {"durable": True}})
    async with realtime(user=user) as ada:
        await ada.join("r")
        for number in range(3):
            event = Broadcast("r", "default", number, now())
            await sync_to_async(history.append)(event, 100)
        await abroadcast("r", "three")  # shows the gap
        assert [(await ada.receive("event"))["message"] for _ in range(4)] == [0, 1, 2, "three"]
        await sync_to_async(history.append)(Broadcast("r", "default", "silent", now()), 100)
        assert (await ada.receive("event"))["message"] == "silent"  # found by a look
        await abroadcast("r", "last")
        assert (await ada.receive("event"))["message"] == "last"
        assert await ada.receive_nothing()


async def test_idempotency(realtime, user, bob, presence):
    async with realtime(user=bob) as listener, realtime(user=user) as ada:
        await listener.join("r")
        await ada.join("r")
        await listener.receive("presence")
        say = {"type": "broadcast", "room": "r", "message": 1, "echo": False}
        say |= {"idempotency_key": "k1", "id": 1}
        assert await ada.request(say) == {"type": "sent", "room": "r", "id": 1}
        again = await ada.request(say)
        assert again == {"type": "sent", "room": "r", "id": 1, "duplicate": True}
        assert (await ada.request({**say, "idempotency_key": ""}))["code"] == "bad_request"
        await abroadcast("r", 2, idempotency_key="k1")
        await abroadcast("r", 3, idempotency_key="k2")
        await sync_to_async(broadcast)("r", 4, idempotency_key="k2")
        await abroadcast("other room", 5, idempotency_key="k1")
        assert [(await listener.receive("event"))["message"] for _ in "ab"] == [1, 3]
        assert await listener.receive_nothing()


async def test_direct_and_project_wide(realtime, user, bob, api_key):
    elsewhere = (await sync_to_async(ApiKey.objects.create_key)("x", project="elsewhere"))[1]
    async with (
        realtime(user=user) as one,
        realtime(user=user) as two,
        realtime(user=bob) as other,
        realtime(token=elsewhere) as far,
    ):
        await sync_to_async(send_to_user)(user, {"hello": "ada"})
        for client in (one, two):
            frame = await client.receive("event")
            assert (frame["event"], frame["message"]) == ("direct", {"hello": "ada"})
            assert frame["sender"] is None
        await sync_to_async(send_to_user)(user, "not here", project="elsewhere")
        await sync_to_async(broadcast)("*", "everybody")
        for client in (one, two, other):
            frame = await client.receive("event")
            assert (frame["event"], frame["room"], frame["message"]) == (
                "broadcast",
                "*",
                "everybody",
            )
        # what clients say there is for those who joined
        await one.join("*")
        await other.send({"type": "broadcast", "room": "*", "message": "x", "id": 1})
        assert (await other.receive("error"))["code"] == "not_joined"
        await one.send({"type": "broadcast", "room": "*", "message": "mine"})
        assert (await one.receive("event"))["message"] == "mine"
        for client in (two, other, far):
            assert await client.receive_nothing()


@pytest.mark.parametrize("where", ["groups", "backend"])
async def test_a_connection_that_is_closed_while_it_joins_leaves_no_ghost(
    realtime, user, bob, settings, monkeypatch, where
):
    from django_cocobase_realtime import disconnect
    from django_cocobase_realtime.fanout.membership import Membership
    from django_cocobase_realtime.rooms.database import DatabasePresence

    configure(settings, {})
    need, enter = Membership.need, DatabasePresence.enter

    async def slow_need(self, *args):
        await need(self, *args)
        await asyncio.sleep(0.5)

    def slow_enter(self, *args, **options):
        time.sleep(0.5)
        return enter(self, *args, **options)

    async with realtime(user=bob) as other, realtime(user=user) as ada:
        await other.join("second")
        if where == "groups":
            monkeypatch.setattr(Membership, "need", slow_need)
        else:
            monkeypatch.setattr(DatabasePresence, "enter", slow_enter)
        await ada.send({"type": "join", "room": "second"})
        await asyncio.sleep(0.2)
        await sync_to_async(disconnect)(user=user)
        assert await ada.closed() == 4500
        await asyncio.sleep(1)
        assert await PresenceConnection.objects.acount() == 1


async def test_nothing_is_left_behind(realtime, user, settings):
    configure(settings, {})
    async with realtime(user=user) as ada:
        for number in range(5):
            await ada.join(f"r{number}")
        assert await PresenceConnection.objects.acount() == 5
        for number in range(5):
            await ada.request({"type": "leave", "room": f"r{number}"})
        assert await PresenceConnection.objects.acount() == 0


async def test_a_lost_lease_is_taken_again(realtime, user, bob, settings):
    """As after a long stall, or where somebody emptied the tables."""
    settings.COCOBASE_REALTIME = {"PRESENCE": SHORT}
    async with realtime(user=user) as ada, realtime(user=bob) as other:
        await ada.join("r", state={"a": 1})
        await other.join("r")
        await ada.receive("presence")
        await PresenceServer.objects.all().adelete()
        await PresenceRoom.objects.all().adelete()
        async with asyncio.timeout(10):
            while await PresenceConnection.objects.acount() < 2:
                await asyncio.sleep(0.1)
        async with realtime(user=bob) as again:
            reply = await again.join("r")
            assert {m["name"]: m["state"] for m in reply["members"]} == {
                "ada": {"a": 1},
                "bob": {},
            }


async def test_a_lease_that_is_taken_again_in_part_is_taken_again_in_whole(
    realtime, user, bob, settings, monkeypatch
):
    """The backend fails between the first and the last of those who are entered again."""
    settings.COCOBASE_REALTIME = {"PRESENCE": SHORT}
    async with realtime(user=user) as ada, realtime(user=bob) as other:
        await ada.join("r")
        await other.join("r")
        await ada.receive("presence")
        backend, entered = type(backends.presence()), []
        enter = backend.enter

        def failing(self, entry, **options):
            entered.append(entry.member)
            if len(entered) == 2:
                raise OperationalError("database is locked")
            return enter(self, entry, **options)

        monkeypatch.setattr(backend, "enter", failing)
        await PresenceServer.objects.all().adelete()
        await PresenceRoom.objects.all().adelete()
        async with asyncio.timeout(10):
            while await PresenceConnection.objects.acount() < 2:
                await asyncio.sleep(0.1)
        assert entered == [str(user.pk), str(bob.pk), str(bob.pk)]
