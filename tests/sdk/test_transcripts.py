"""Transcripts of the published SDKs: the frames they send and the frames they must receive."""

import asyncio
import re
from datetime import datetime

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime import abroadcast
from django_cocobase_realtime.auth.throttling import AuthThrottle
from django_cocobase_realtime.models import ApiKey, PresenceRoom
from tests.app.models import Post

POSTS = "/realtime/collections/posts"
SHORT_TIMES = {"GRACE": 0.6, "LEASE": 3}


@pytest.fixture(autouse=True)
def _fresh_throttle(monkeypatch):
    fresh = AuthThrottle()
    monkeypatch.setattr("django_cocobase_realtime.auth.throttling.auth_throttle", fresh)
    monkeypatch.setattr("django_cocobase_realtime.consumers.sdk_consumer.auth_throttle", fresh)


@pytest.fixture
def sdk(realtime):
    return lambda path: realtime(path=path, authenticate=False)


async def enter_room(client, key, **first):
    return await client.request({"api_key": key, **first})


def without_timestamp(frame):
    at = frame.pop("timestamp")
    assert datetime.fromisoformat(at).tzinfo is not None
    return frame


async def test_collection_frames_are_readable_by_go_sdk(sdk, api_key):
    """Its struct needs a string ``collection`` and times with an offset, or its loop ends."""
    async with sdk(POSTS) as go:
        reply = await go.request({"api_key": api_key, "filters": {"status": "published"}})
        assert reply == {
            "event": "connected",
            "collection_id": "posts",
            "filters": {"status": "published"},
        }
        await Post.objects.acreate(title="a draft")
        post = await Post.objects.acreate(title="one", status="published")
        frame = await go.receive()
        data, document = frame.pop("data"), frame.pop("document")
        assert frame == {"event": "create", "collection_id": "posts"}
        assert (data["id"], data["collection"], data["collection_id"]) == (
            str(post.pk),
            "posts",
            "posts",
        )
        for name in ("created_at", "updated_at"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", data[name])
        assert data["data"]["title"] == "one"
        # the fields that JavaScript SDK 1.6 reads
        assert document["collection"] == {"id": "posts", "name": "posts"}
        assert (document["id"], document["data"]) == (data["id"], data["data"])
        post.title = "two"
        await post.asave()
        frame = await go.receive()
        assert frame["event"] == "update"
        assert frame["old_data"]["title"] == "one"
        assert set(frame["old_data"]) == {"title", "updated_at"}
        post.status = "draft"  # no longer matches the filter: no frame
        await post.asave()
        await post.adelete()  # also no frame
        other = await Post.objects.acreate(title="deleted", status="published")
        assert (await go.receive())["event"] == "create"
        await other.adelete()
        frame = await go.receive()
        assert (frame["event"], frame["data"]["data"]["title"]) == ("delete", "deleted")
        assert "old_data" not in frame
        assert await go.request({"type": "ping"}) == {"type": "pong"}
        assert await go.request("ping") == {"event": "pong"}
        assert await go.receive_nothing()


async def test_old_values_of_rows_that_did_not_match_are_not_sent(sdk, api_key):
    async with sdk(POSTS) as client:
        await client.request({"api_key": api_key, "filters": {"status": "published"}})
        post = await Post.objects.acreate(title="secret draft")
        post.title, post.status = "public", "published"
        await post.asave()
        frame = await client.receive()
        assert (frame["event"], "old_data" in frame) == ("update", False)


async def test_unreadable_timestamps_are_not_sent(sdk, api_key, settings):
    posts = {"model": "app.Post", "fields": ["title"]}
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": posts, "timed": {**posts, "created_field": "created_at"}}
    }
    async with sdk(POSTS) as bare, sdk("/realtime/collections/timed/") as timed:
        for client in (bare, timed):
            assert "filters" not in await client.request({"api_key": api_key})
        await Post.objects.acreate(title="x")
        data = (await bare.receive())["data"]
        assert (data["created_at"], data["updated_at"]) == (None, None)
        data = (await timed.receive())["data"]
        assert data["created_at"].endswith("+00:00")
        assert data["data"] == {"title": "x"}


async def test_document_too_large_is_sent_without_data(sdk, api_key, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LIMITS": {"event_bytes": 2000},
    }
    async with sdk(POSTS) as client:
        await client.request({"api_key": api_key})
        post = await Post.objects.acreate(title="x", body="y" * 3000)
        frame = await client.receive()
        assert (frame["data"]["id"], frame["data"]["data"], frame["truncated"]) == (
            str(post.pk),
            {},
            True,
        )


BAD_KEY = {"type": "error", "error": "Invalid API key", "error_detail": "Project not found"}
NO_KEY = {"type": "error", "error": "API key is required"}
DENIED = {"type": "error", "error": "Collection not found or access denied"}


@pytest.mark.parametrize("path", [POSTS, "/realtime/broadcast", "/realtime/rooms/r"])
async def test_invalid_first_frame_is_answered_and_closes(sdk, api_key, path):
    for first, reply in [
        ({"filters": {}}, NO_KEY),
        ({"api_key": ""}, NO_KEY),
        ({"api_key": 5}, NO_KEY),
        ({"api_key": "crk_12345678_wrong"}, BAD_KEY),
        ({"api_key": "crk_12345678_wrong"}, BAD_KEY),  # again: remembered as wrong
        ({"token": "a.b.c"}, BAD_KEY),
        ("{", {"type": "error", "error": "Authentication failed"}),
        ('{"api_key": "x", "a": NaN}', {"type": "error", "error": "Authentication failed"}),
        ({"api_key": api_key, "x": "y" * 5000}, {"error": "Authentication failed"}),
    ]:
        async with sdk(path) as client:
            frame = await client.request(first)
            assert frame.items() >= reply.items(), first
            assert await client.closed() == 4500
    async with sdk(path) as client:
        assert await client.request({"type": "ping", "api_key": "x"}) == {"type": "pong"}


async def test_connection_without_key_is_closed_after_timeout(sdk, transactional_db, settings):
    settings.COCOBASE_REALTIME = {"LIMITS": {"auth_timeout": 0.1}}
    async with sdk(POSTS) as client:
        assert await client.receive() == {"type": "error", "error": "Authentication timeout"}
        assert await client.closed() == 4501


@pytest.mark.parametrize("name", ["nothing", "x" * 200])
async def test_unknown_collection_is_answered_and_closes(sdk, api_key, name):
    async with sdk(f"/realtime/collections/{name}") as client:
        frame = await client.request({"api_key": api_key})
        assert frame == DENIED or "128 bytes" in frame["error"]
        assert await client.closed() == 4505
        assert await client.receive_nothing()


@pytest.mark.parametrize("filters", [{"nothing": 1}, {"views": "many"}, [1], "x"])
async def test_invalid_filter_is_answered_and_closes(sdk, api_key, filters):
    async with sdk(POSTS) as client:
        frame = await client.request({"api_key": api_key, "filters": filters})
        assert frame["error"] == "Invalid filter"
        assert frame["error_detail"]
        assert await client.closed() == 4505


async def test_project_broadcast_channel(sdk, api_key):
    other = (await sync_to_async(ApiKey.objects.create_key)("o", project="other"))[1]
    path = "/realtime/broadcast"
    async with sdk(path) as one, sdk(path) as two, sdk(path) as far, sdk("/realtime/rooms/r") as r:
        reply = await one.request({"api_key": api_key, "user_id": "7", "user_name": "Ann"})
        assert reply == {"event": "connected", "project_id": "default", "user_id": "7"}
        reply = await two.request({"api_key": api_key})
        assert reply["user_id"] == "anonymous"
        await far.request({"api_key": other})
        await enter_room(r, api_key, action="create")
        await one.send({"type": "message", "data": {"x": [1, None]}})
        for client in (one, two):
            frame = without_timestamp(await client.receive())
            assert frame == {
                "type": "message",
                "user_id": "7",
                "user_name": "Ann",
                "data": {"x": [1, None]},
            }
        await two.send({"hello": "world"})
        frame = without_timestamp(await one.receive())
        assert (frame["user_name"], frame["data"]) == ("Anonymous", {"hello": "world"})
        await two.receive()
        await abroadcast("*", "from the server")
        for client in (one, two):
            frame = await client.receive()
            assert (frame["user_id"], frame["data"]) == ("server", "from the server")
        assert await one.request("{") == {"type": "error", "error": "Invalid JSON"}
        assert await one.request({"type": "ping"}) == {"type": "pong"}
        for client in (far, r):
            assert await client.receive_nothing()


async def test_room_frames_of_flutter_sdk(sdk, api_key):
    path = "/realtime/rooms/lobby"
    async with sdk(path) as early:
        frame = await enter_room(early, api_key, user_id="0", action="join")
        assert frame == {"type": "error", "error": "Room not found", "room_id": "lobby"}
        assert await early.closed() == 4505
    assert not await PresenceRoom.objects.aexists()
    async with sdk(path) as ann:
        reply = await enter_room(
            ann, api_key, user_id="a", user_name="Ann", action="create", room_title="The Lobby"
        )
        assert reply == {
            "event": "joined",
            "room_id": "lobby",
            "room_title": "The Lobby",
            "participants": 1,
            "user_id": "a",
        }
        async with sdk(path) as bob:
            reply = await enter_room(
                bob, api_key, user_id="b", user_name="Bob", action="create", room_title="Mine"
            )
            assert (reply["room_title"], reply["participants"]) == ("The Lobby", 2)
            info = {"id": "lobby", "title": "The Lobby", "participants": 2}
            assert without_timestamp(await ann.receive()) == {
                "type": "user_joined",
                "user_id": "b",
                "user_name": "Bob",
                "room_info": info,
            }
            await bob.send({"type": "message", "content": {"text": "hi", "kind": "text"}})
            for client in (ann, bob):
                assert without_timestamp(await client.receive()) == {
                    "type": "message",
                    "user_id": "b",
                    "user_name": "Bob",
                    "content": {"text": "hi", "kind": "text"},
                    "room_info": {"id": "lobby", "title": "The Lobby"},
                }
        frame = without_timestamp(await ann.receive())
        assert frame == {
            "type": "user_left",
            "user_id": "b",
            "user_name": "Bob",
            "room_info": {**info, "participants": 1},
        }
        # two anonymous people are two participants
        async with sdk(path) as x, sdk(path) as y:
            assert (await enter_room(x, api_key))["participants"] == 2
            assert (await enter_room(y, api_key))["participants"] == 3
            assert [(await ann.receive())["user_id"] for _ in "xy"] == ["anonymous", "anonymous"]
            assert (await x.receive())["type"] == "user_joined"
        await asyncio.sleep(0)
    async with asyncio.timeout(5):  # an empty room is removed
        while await PresenceRoom.objects.aexists():
            await asyncio.sleep(0.05)


async def test_native_and_sdk_clients_share_a_room(sdk, realtime, api_key, user, settings):
    settings.COCOBASE_REALTIME = {"PRESENCE": SHORT_TIMES}
    async with realtime(user=user) as native, sdk("/realtime/rooms/chat-123") as other:
        await native.join("chat-123", state={"mood": "fine"})
        reply = await enter_room(other, api_key, user_id=str(user.pk), user_name="not ada")
        assert (reply["room_title"], reply["participants"]) == ("chat-123", 2)
        frame = await native.receive("presence")
        # a claimed id is not the id of a user
        assert frame["member"]["verified"] is False
        assert frame["member"]["id"] != str(user.pk)
        assert frame["member"]["name"] == "not ada"
        await native.send({"type": "broadcast", "room": "chat-123", "message": {"text": "hello"}})
        await native.receive("event")
        frame = without_timestamp(await other.receive())
        assert frame == {
            "type": "message",
            "user_id": str(user.pk),
            "user_name": "ada",
            "content": {"text": "hello"},
            "room_info": {"id": "chat-123", "title": "chat-123"},
        }
        await other.send({"type": "message", "content": "hi"})
        frame = await native.receive("event")
        assert (frame["message"], frame["room"]) == ("hi", "chat-123")
        assert frame["sender"] == {"id": str(user.pk), "name": "not ada", "verified": False}
        await other.receive()
        await native.send({"type": "state", "room": "chat-123", "state": {"typing": True}})
        assert await other.receive_nothing()
        await native.send({"type": "leave", "room": "chat-123"})
        frame = without_timestamp(await other.receive())
        assert (frame["type"], frame["user_name"]) == ("user_left", "ada")
    async with sdk("/realtime/rooms/chat-123") as late:
        reply = await enter_room(late, api_key)
        assert reply["error"] == "Room not found"


async def test_key_with_user_ignores_claimed_identity(sdk, realtime, user, settings):
    settings.COCOBASE_REALTIME = {"PRESENCE": {"GRACE": 10, "LEASE": 18}}
    key = (await sync_to_async(ApiKey.objects.create_key)("mine", user=user))[1]
    path = "/realtime/rooms/r"
    async with sdk(path) as watcher:
        bare = (await sync_to_async(ApiKey.objects.create_key)("bare"))[1]
        await enter_room(watcher, bare, action="create")
        async with sdk(path) as client:
            reply = await enter_room(client, key, user_id="999", user_name="Impostor")
            assert reply["user_id"] == str(user.pk)
            frame = await watcher.receive()
            assert (frame["user_id"], frame["user_name"]) == (str(user.pk), "ada")
            await client.send({"type": "message", "content": 1})
            assert (await watcher.receive())["user_name"] == "ada"
        # an SDK leaves by closing its socket: there is no grace period
        assert (await watcher.receive(timeout=3))["type"] == "user_left"


class UsersOnly:
    def can_join(self, identity, room):
        return identity.user_id is not None


async def test_forbidden_room_is_answered_like_a_missing_one(sdk, api_key, settings):
    settings.COCOBASE_REALTIME = {"ROOMS": {"m-*": {"permission": f"{__name__}.UsersOnly"}}}
    for name in ("m-1", "elsewhere"):
        for action in ("create", "join"):
            async with sdk(f"/realtime/rooms/{name}") as client:
                reply = await enter_room(client, api_key, action=action)
                assert reply == {"type": "error", "error": "Room not found", "room_id": name}
                assert await client.closed() == 4505


async def test_exceeded_rate_limit_is_answered_with_error(sdk, api_key, settings):
    settings.COCOBASE_REALTIME = {"LIMITS": {"broadcast_rate": (0.1, 1)}}
    async with sdk("/realtime/rooms/r") as client:
        await enter_room(client, api_key, action="create")
        await client.send({"type": "message", "content": 1})
        await client.receive()
        reply = await client.request({"type": "message", "content": 2})
        assert reply["type"] == "error"
        assert (await client.request({"type": "ping"})) == {"type": "pong"}


@pytest.mark.parametrize("limit", ["unauthenticated_per_address", "connections_per_process"])
async def test_unauthenticated_connections_are_limited(sdk, api_key, settings, limit):
    settings.COCOBASE_REALTIME = {"LIMITS": {limit: 1}}
    async with sdk(POSTS), sdk(POSTS) as second:
        assert (await second.receive())["type"] == "error"
        assert await second.closed() == 4131
    async with sdk(POSTS) as third:  # closed connections do not count
        assert (await third.request({"filters": {}})) == NO_KEY


async def test_revoked_key_is_answered_and_closes(sdk, api_key):
    async with sdk("/realtime/broadcast") as client:
        await client.request({"api_key": api_key})
        key = await ApiKey.objects.aget()
        await sync_to_async(key.revoke)()
        assert (await client.receive())["type"] == "error"
        assert await client.closed() == 4500
