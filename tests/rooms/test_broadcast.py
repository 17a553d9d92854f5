"""Broadcasts: history, durable rooms, idempotency keys, messages to a user and to a project."""

import time

from asgiref.sync import sync_to_async

from django_cocobase_realtime import abroadcast, broadcast, send_to_user
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.models import ApiKey, RoomMessage
from django_cocobase_realtime.rooms.history import cursor
from tests.support.rooms import configure


async def test_history_is_limited_by_size(realtime, user, settings, monkeypatch):
    """Otherwise many clients that join at once and read slowly could fill the memory."""
    configure(settings, {"*": {"history": 300}})
    monkeypatch.setattr("django_cocobase_realtime.rooms.history.MAX_BYTES", 3000)
    async with realtime(user=user) as ada:
        start = (await ada.join("r"))["cursor"]
        for number in range(70):
            await abroadcast("r", f"{number}" if number < 60 else f"{number} " + "x" * 1000)
        last = [await ada.receive("event") for _ in range(70)][-1]["cursor"]
    async with realtime(user=user) as ada:
        await ada.join("r", history=300)
        messages = [(await ada.receive("event"))["message"][:3] for _ in "ab"]
        assert messages == ["68 ", "69 "]
        assert await ada.receive_nothing()
        await ada.send({"type": "leave", "room": "r"})
        await ada.receive("left")
        reply = await ada.join("r", since=start)
        assert (reply["resumed"], reply["resync"]) == (False, {"reason": "replay_limit"})
        assert reply["cursor"] == last
        assert await ada.receive_nothing()


async def test_history_is_sent_on_join_and_resumed_from_cursor(realtime, user, bob, settings):
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
            # with a cursor, all broadcasts after it
            reply = await ada.join("chat-1", since=events[3]["cursor"])
            assert reply["resumed"] is True
            assert [(await ada.receive("event"))["message"] for _ in "ab"] == [
                4,
                "from the server",
            ]
            room = ("default", "chat-1")
            for since, reason in [
                (start, "retention"),
                ("nonsense", "invalid_cursor"),
                (cursor(room, Position(start.split(".")[1], 999)), "ahead_of_head"),
                (cursor(room, Position("abcdef01", 1)), "epoch_changed"),
            ]:
                reply = await ada.join("chat-1", since=since, history=1)
                assert (reply["resumed"], reply["resync"]) == (False, {"reason": reason})
                assert (await ada.receive("event"))["message"] == "from the server"
            reply = await ada.join("elsewhere", history=5, since=start)
            assert reply["resync"] == {"reason": "not_kept"}
            assert "cursor" not in reply
            assert await ada.receive_nothing()
    assert await RoomMessage.objects.acount() == 3


async def test_broadcasts_during_history_read_arrive_once(realtime, user, settings, monkeypatch):
    from django_cocobase_realtime.rooms import history

    configure(settings, {"*": {"history": 10}})
    read_history = history.read_history

    def slow_read_history(*args):
        broadcast("r", "early")  # in the history, and in the layer
        time.sleep(0.3)
        past = read_history(*args)
        broadcast("r", "late")
        time.sleep(0.3)
        return past

    monkeypatch.setattr(history, "read_history", slow_read_history)
    async with realtime(user=user) as ada:
        await ada.join("r", history=5)
        early, late = await ada.receive("event"), await ada.receive("event")
        assert (early["message"], early.get("replayed")) == ("early", True)
        assert (late["message"], late.get("replayed")) == ("late", None)
        assert await ada.receive_nothing()


async def test_durable_room_delivers_broadcasts_lost_by_layer(realtime, user, settings):
    """They are in the database only: from another process, or lost by the layer."""
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
        assert (await ada.receive("event"))["message"] == "silent"  # found by polling
        await abroadcast("r", "last")
        assert (await ada.receive("event"))["message"] == "last"
        assert await ada.receive_nothing()


async def test_idempotency_key_prevents_duplicate_broadcasts(realtime, user, bob, presence):
    async with realtime(user=bob) as listener, realtime(user=user) as ada:
        await listener.join("r")
        await ada.join("r")
        await listener.receive("presence")
        request = {"type": "broadcast", "room": "r", "message": 1, "echo": False}
        request |= {"idempotency_key": "k1", "id": 1}
        assert await ada.request(request) == {"type": "sent", "room": "r", "id": 1}
        again = await ada.request(request)
        assert again == {"type": "sent", "room": "r", "id": 1, "duplicate": True}
        assert (await ada.request({**request, "idempotency_key": ""}))["code"] == "bad_request"
        await abroadcast("r", 2, idempotency_key="k1")
        await abroadcast("r", 3, idempotency_key="k2")
        await sync_to_async(broadcast)("r", 4, idempotency_key="k2")
        await abroadcast("other room", 5, idempotency_key="k1")
        assert [(await listener.receive("event"))["message"] for _ in "ab"] == [1, 3]
        assert await listener.receive_nothing()


async def test_messages_to_user_and_to_project(realtime, user, bob, api_key):
    other_key = (await sync_to_async(ApiKey.objects.create_key)("x", project="elsewhere"))[1]
    async with (
        realtime(user=user) as one,
        realtime(user=user) as two,
        realtime(user=bob) as other,
        realtime(token=other_key) as other_project,
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
        # broadcasts of clients to room "*" reach only clients that joined it
        await one.join("*")
        await other.send({"type": "broadcast", "room": "*", "message": "x", "id": 1})
        assert (await other.receive("error"))["code"] == "not_joined"
        await one.send({"type": "broadcast", "room": "*", "message": "mine"})
        assert (await one.receive("event"))["message"] == "mine"
        for client in (two, other, other_project):
            assert await client.receive_nothing()
