"""The members of a room as other clients see them: tabs, reconnects, states, unlisted clients."""

import asyncio

from asgiref.sync import sync_to_async

from tests.support.rooms import receive_presence


async def test_user_with_three_connections_leaves_with_the_last(realtime, user, bob, presence):
    async with realtime(user=bob) as watcher:
        await watcher.join("r")
        async with realtime(user=user) as first, realtime(user=user) as second:
            assert (await first.join("r"))["participants"] == 2
            assert await receive_presence(watcher) == ("joined", "ada", 2)
            reply = await second.join("r")
            assert reply["participants"] == 2
            assert [m["name"] for m in reply["members"]] == ["bob", "ada"]
            async with realtime(user=user) as third:
                await third.join("r")
            await second.send({"type": "leave", "room": "r"})
            await second.receive("left")
            assert await watcher.receive_nothing(1.5)  # two of three connections have left
            assert await first.receive_nothing()
        assert await receive_presence(watcher) == ("left", "ada", 1)
        assert await watcher.receive_nothing()


async def test_reconnect_within_grace_period_sends_no_presence(realtime, user, bob, presence):
    async with realtime(user=bob) as watcher:
        await watcher.join("r")
        async with realtime(user=user) as ada:
            await ada.join("r", state={"mood": "fine"})
            assert await receive_presence(watcher) == ("joined", "ada", 2)
        await asyncio.sleep(0.2)
        async with realtime(user=user) as ada:
            reply = await ada.join("r")
            assert {"id": str(user.pk), "name": "ada", "state": {"mood": "fine"}} in reply[
                "members"
            ]
            assert await watcher.receive_nothing(1.5)
            await ada.send({"type": "leave", "room": "r"})
            assert await receive_presence(watcher) == ("left", "ada", 1)


async def test_client_without_user_leaves_without_grace_period(realtime, api_key, user, presence):
    async with realtime(user=user) as watcher:
        await watcher.join("r")
        async with realtime(token=api_key) as one, realtime(token=api_key) as two:
            assert (await one.join("r"))["participants"] == 2
            assert (await two.join("r"))["participants"] == 3
            assert [(await receive_presence(watcher))[2] for _ in "ab"] == [2, 3]
        events = {(await receive_presence(watcher))[0] for _ in "ab"}
        assert events == {"left"}


async def test_state_changes_are_sent_to_other_members(realtime, user, bob, presence, settings):
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
        # an unchanged state is not sent
        await ada.request({"type": "state", "room": "r", "state": {"typing": True}, "id": 6})
        reply = await ada.request({"type": "state", "room": "r", "state": {"x": "y" * 1100}})
        assert reply["code"] == "too_large"
        reply = await ada.request({"type": "join", "room": "q", "state": {"x": "y" * 1100}})
        assert reply["code"] == "too_large"
        assert await watcher.receive_nothing()
        assert await ada.receive_nothing()


async def test_client_without_presence_is_not_listed(realtime, user, bob, presence):
    async with realtime(user=bob) as watcher, realtime(user=user) as unlisted:
        reply = await unlisted.join("r", presence=False)
        assert (reply["participants"], reply["members"]) == (0, [])
        assert (await watcher.join("r"))["participants"] == 1
        assert await receive_presence(unlisted) == ("joined", "bob", 1)
        reply = await unlisted.request({"type": "state", "room": "r", "state": {}})
        assert reply["code"] == "forbidden"
        await unlisted.send({"type": "broadcast", "room": "r", "message": "boo"})
        assert (await watcher.receive("event"))["message"] == "boo"
        await unlisted.receive("event")
        # becomes listed, and unlisted again
        assert (await unlisted.join("r"))["participants"] == 2
        assert await receive_presence(watcher) == ("joined", "ada", 2)
        assert (await unlisted.join("r", presence=False))["participants"] == 1
        assert await receive_presence(watcher) == ("left", "ada", 1)
        await unlisted.send({"type": "leave", "room": "r"})
        await unlisted.receive("left")
        assert await watcher.receive_nothing()


async def test_disconnected_user_leaves_without_grace_period(realtime, user, bob, presence):
    from django_cocobase_realtime import disconnect

    async with realtime(user=bob) as watcher, realtime(user=user) as ada:
        await watcher.join("r")
        await ada.join("r")
        assert await receive_presence(watcher) == ("joined", "ada", 2)
        await sync_to_async(disconnect)(user=user)
        assert await ada.closed() == 4500
        frame = await watcher.receive("presence", timeout=2)
        assert frame["event"] == "left"
