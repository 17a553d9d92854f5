"""Access of each kind of client to each collection and room, in each dialect and over HTTP.

The tables name all that is allowed. Everything else is tried, and must be refused.
"""

import asyncio
import json
import os
from contextlib import asynccontextmanager

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime import abroadcast, send_to_user
from django_cocobase_realtime.auth.throttling import AuthThrottle
from django_cocobase_realtime.models import ApiKey
from tests.app.models import Post

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        os.environ.get("TEST_DATABASE") == "postgres", reason="It does not depend on the database."
    ),
]

ANONYMOUS = "django_cocobase_realtime.auth.anonymous.Anonymous"
AUTHENTICATORS = [
    ANONYMOUS,  # asked last, although it is listed first
    "django_cocobase_realtime.auth.api_key.ApiKeyAuthenticator",
    "django_cocobase_realtime.auth.django_session.DjangoSessionAuthenticator",
]
PERMISSIONS = "django_cocobase_realtime.permissions"
COLLECTIONS = {
    "open": {"model": "app.Post", "public": True, "aliases": ["former"]},
    "published": {
        "model": "app.Post",
        "public": True,
        "permission": "tests.support.permissions.Published",
    },
    "known": {"model": "app.Post", "public": True, "permission": f"{PERMISSIONS}.HasCredential"},
    "people": {"model": "app.Post", "permission": f"{PERMISSIONS}.IsAuthenticated"},
    "any": {"model": "app.Post", "permission": f"{PERMISSIONS}.AllowAny"},
    "plain": "app.Post",
}
ROOMS = {
    "lobby-*": {"public": True},
    "news": {"public": True, "permission": f"{__name__}.MembersForAll"},
    "hall": {},
    "staff": {"permission": f"{__name__}.Nothing"},
    "*": {"public": True},
}
SCOPE = {"collections": ["open", "people"], "rooms": ["lobby-*"]}


class Nothing:
    def can_join(self, identity, room):
        return False


class MembersForAll:
    def can_broadcast(self, identity, room):
        return True

    def can_see_members(self, identity, room):
        return True


# arguments of the key, or None; whether it belongs to the user "ada"
CLIENTS = {
    "visitor": (None, False),
    "user": (None, True),
    "key": ({}, False),
    "server": ({"can_publish": True}, False),
    "reader": ({"read_only": True}, False),
    "scoped": (SCOPE, False),
    "scoped server": ({**SCOPE, "can_publish": True}, False),
    "scoped reader": ({**SCOPE, "read_only": True}, False),
    "scoped user": (SCOPE, True),
    "former name": ({"collections": ["former"], "rooms": ["*"]}, False),
    "one character": ({"collections": None, "rooms": ["?", "[*]", "[!a]"]}, False),
    "nothing": ({"collections": [], "rooms": []}, True),
    "broken": ({"collections": ["plain"], "rooms": ["hall"]}, True),
}
ALL_NAMES = {*COLLECTIONS, "former", "unknown"}
EVERY = "open former published known any plain"
# collections that each may subscribe to, rooms that it may join, and what it may do there:
# "w" to broadcast and to be a member with a state, "m" to see the members
ALLOWED = {
    "visitor": ("open former published", {"lobby-1": "", "news": "m"}),
    "user": (f"{EVERY} people", dict.fromkeys(["lobby-1", "news", "hall", "*"], "wm")),
    "key": (EVERY, dict.fromkeys(["lobby-1", "news", "hall", "*"], "wm")),
    "server": (EVERY, dict.fromkeys(["lobby-1", "news", "hall", "*"], "wm")),
    "reader": (EVERY, dict.fromkeys(["lobby-1", "news", "hall", "*"], "m")),
    "scoped": ("open former", {"lobby-1": "wm"}),
    "scoped server": ("open former", {"lobby-1": "wm"}),
    "scoped reader": ("open former", {"lobby-1": "m"}),
    "scoped user": ("open former people", {"lobby-1": "wm"}),
    "former name": ("open former", dict.fromkeys(["lobby-1", "news", "hall", "*"], "wm")),
    "one character": (EVERY, {}),
    "nothing": ("", {}),
    "broken": ("", {}),
}
ROOM_NAMES = ["lobby-1", "news", "hall", "staff", "*"]
PUBLISHES = {"server": set(ROOM_NAMES), "scoped server": {"lobby-1"}}


@pytest.fixture(autouse=True)
def _configure(settings, monkeypatch):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": COLLECTIONS,
        "ROOMS": ROOMS,
        "AUTHENTICATORS": AUTHENTICATORS,
        "LIMITS": {"unauthenticated_per_address": 100},
    }
    fresh = AuthThrottle()
    monkeypatch.setattr("django_cocobase_realtime.auth.throttling.auth_throttle", fresh)
    monkeypatch.setattr("django_cocobase_realtime.consumers.sdk_consumer.auth_throttle", fresh)


@pytest.fixture(params=CLIENTS)
def who(request):
    return request.param


@pytest.fixture
def credential(who, user):
    """Return the options of `connect` for a client."""
    options, is_ada = CLIENTS[who]
    if options is None:
        return {"user": user} if is_ada else {}
    key, text = ApiKey.objects.create_key("k", user=user if is_ada else None, **options)
    if who == "reader":  # it cannot be created so
        ApiKey.objects.filter(pk=key.pk).update(can_publish=True)
    if who == "broken":  # as no form would store it: a text, and a number in a list
        ApiKey.objects.filter(pk=key.pk).update(collections="plain", rooms=["hall", 1])
    return {"token": text}


async def test_native_dialect(realtime, who, credential):
    collections, rooms = ALLOWED[who]
    await Post.objects.acreate(title="draft")
    async with realtime(**credential) as client:
        refusals = set()
        for name in ALL_NAMES:
            frame = {"type": "subscribe", "collection": name, "snapshot": True, "since": "c1"}
            reply = await client.request(frame)
            if name not in collections.split():
                assert reply["code"] == "unknown_collection"
                refusals.add(reply["message"].replace(name, "?"))
                continue
            assert reply["type"] == "subscribed", name
            documents = (await client.receive("snapshot"))["documents"]
            assert len(documents) == (name != "published")
        assert len(refusals) == 1
        for room in ROOM_NAMES:
            await check_room(client, room, rooms.get(room))


async def check_room(client, room, allowed):
    reply = await client.request({"type": "join", "room": room})
    if allowed is None:
        assert reply["code"] == "forbidden"
        assert reply["message"] == f"You may not join the room {room!r}."
        for type, more in (("broadcast", {"message": 1}), ("state", {"state": {}})):
            assert (await client.request({"type": type, "room": room, **more}))[
                "code"
            ] == "not_joined"
        return
    writes = "w" in allowed
    assert (reply["participants"], len(reply["members"])) == (writes, writes and "m" in allowed)
    for frame in (
        {"type": "broadcast", "room": room, "message": 1, "echo": False, "id": 1},
        {"type": "state", "room": room, "state": {"a": 1}, "id": 1},
        {"type": "join", "room": room, "state": {"a": 1}, "id": 1},
    ):
        reply = await client.request(frame)
        assert (reply["type"] != "error") is writes, (frame, reply)
        assert writes or reply["code"] == "forbidden"


async def test_members_are_hidden_from_visitors(realtime, user):
    """A visitor sees them only if a method of the room's declaration allows it."""
    async with realtime(user=user) as ada, realtime() as visitor:
        for room, members in (("lobby-1", []), ("news", ["ada"])):
            await ada.join(room)
            reply = await visitor.join(room)
            assert (reply["participants"], [m["name"] for m in reply["members"]]) == (1, members)
            await ada.send({"type": "state", "room": room, "state": {"a": 1}})
            if members:
                assert (await visitor.receive("presence"))["event"] == "updated"
            assert await visitor.receive_nothing()
            await abroadcast(room, "hi")
            for client in (ada, visitor):
                assert (await client.receive("event"))["message"] == "hi"


@asynccontextmanager
async def opened_rooms(realtime):
    opener = (await sync_to_async(ApiKey.objects.create_key)("opener"))[1]
    async with realtime(token=opener) as client:
        for room in ("lobby-1", "news", "hall", "*"):
            await client.join(room)
        yield client


async def test_sdk_dialect(realtime, who, credential):
    collections, rooms = ALLOWED[who]
    if "token" not in credential:  # neither visitors nor sessions can use an SDK
        collections, rooms = "", {}
    first = {"api_key": credential.get("token")}

    @asynccontextmanager
    async def sdk(path):
        async with realtime(path=f"/realtime/{path}", authenticate=False) as client:
            yield client, await client.request(first)

    async def check_collection(name):
        async with sdk(f"collections/{name}") as (client, reply):
            assert (reply.get("event") == "connected") is (name in collections.split()), reply
            if "error" in reply:
                assert await client.closed() in (4500, 4505)

    async def check_room(room):
        async with sdk("broadcast" if room == "*" else f"rooms/{room}") as (client, reply):
            assert ("error" not in reply) is (room in rooms), reply
            if "error" in reply:
                assert await client.closed() in (4500, 4505)
            elif "w" not in rooms[room]:
                assert "error" in await client.request({"type": "message", "content": 1})

    async with opened_rooms(realtime):
        await asyncio.gather(*map(check_collection, ALL_NAMES), *map(check_room, ROOM_NAMES))


@sync_to_async
def request_http(client, method, path, token, body=None):
    headers = {} if token is None else {"X-API-Key": token}
    if method == "get":
        return client.get(f"/realtime/{path}", headers=headers)
    content = json.dumps(body)
    return client.post(f"/realtime/{path}", content, "application/json", headers=headers)


async def test_http(realtime, who, credential, client):
    token = credential.get("token")
    async with opened_rooms(realtime) as other:
        reply = await request_http(client, "get", "rooms", token)
        if token is None:  # neither visitors nor sessions can use HTTP
            assert reply.status_code == 401
        else:
            assert {room["id"] for room in reply.json()["rooms"]} == set(ALLOWED[who][1])
        for room in ROOM_NAMES:
            body = {"messages": [{"room": "lobby-1", "message": 1}, {"room": room, "message": 1}]}
            status = (await request_http(client, "post", "publish", token, body)).status_code
            allowed = room in PUBLISHES.get(who, ())
            assert status == (401 if token is None else 202 if allowed else 403)
        for _ in ROOM_NAMES:  # nothing is sent of a request that is refused
            if room in PUBLISHES.get(who, ()):
                assert (await other.receive("event"))["message"] == 1
        if who not in PUBLISHES:
            assert await other.receive_nothing()


async def test_messages_outside_of_rooms(realtime, who, credential, user):
    """They reach neither visitors nor keys that are restricted to some rooms."""
    is_ada = CLIENTS[who][1]
    receives = who != "visitor" and ("*" in ALLOWED[who][1])
    async with realtime(**credential) as client:
        assert (await client.request({"type": "ping"}))["type"] == "pong"
        await abroadcast("*", "all")
        if receives:
            assert (await client.receive("event"))["message"] == "all"
        await sync_to_async(send_to_user)(user, "ada")
        if receives and is_ada:
            assert (await client.receive("event"))["message"] == "ada"
        assert await client.receive_nothing()
