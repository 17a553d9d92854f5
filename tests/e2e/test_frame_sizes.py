"""No frame is larger than real servers and clients accept, and they send every one.

The clients of these tests refuse frames of more than 1 MiB, and so does daphne.
"""

import json

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.models import (
    PresenceConnection,
    PresenceMember,
    PresenceRoom,
    PresenceServer,
)
from django_cocobase_realtime.wire.codes import CloseCode
from tests.app.models import Post
from tests.support.client import connect
from tests.support.servers import SERVERS, other_servers
from tests.support.threads import call

pytestmark = pytest.mark.server
MEMBERS = 1200


@pytest.mark.parametrize("kind", [*SERVERS, *other_servers("hypercorn", "granian")])
async def test_batch_of_large_events_is_split(serve, api_key, kind):
    settings = {"LIMITS": {"queue_bytes": 2**23}}
    server = await call(lambda: serve(kind, settings=settings))
    async with connect(server.socket_url, authenticate=False) as client:
        await client.send({"type": "auth", "token": api_key, "batch": True})
        await client.receive("authenticated")
        await client.subscribe("posts")
        posts = [{"title": str(number), "body": "x" * 180_000} for number in range(12)]
        await call(server.post, "/posts", posts)
        titles = []
        while len(titles) < len(posts):
            frame = await client.receive()
            for event in frame["events"] if frame["type"] == "events" else [frame]:
                titles.append(event["document"]["data"]["title"])
        assert titles == [post["title"] for post in posts]


@pytest.mark.parametrize("kind", [*SERVERS, *other_servers("hypercorn", "granian")])
async def test_snapshot_and_replay_of_large_documents(serve, api_key, kind):
    server = await call(serve, kind)
    async with connect(server.socket_url, api_key) as client:
        start = (await client.subscribe("posts"))["cursor"]
    for number in range(30):
        await Post.objects.acreate(title=str(number), body="字" * 60_000)
    async with connect(server.socket_url, api_key) as client:
        await client.subscribe("posts", snapshot=True)
        titles, more = [], True
        while more:
            frame = await client.receive("snapshot")
            titles += [document["data"]["title"] for document in frame["documents"]]
            more = frame["more"]
        assert titles == [str(number) for number in range(30)]
        await client.subscribe("posts", since=start)
        events = [await client.receive("event") for _ in range(30)]
        assert [event["document"]["data"]["title"] for event in events] == titles


def fill_room():
    """Store a room with members of another server, each with the largest state."""
    PresenceServer.objects.create(id="elsewhere", expires_at=2**33)
    room = PresenceRoom.objects.create(
        project="default",
        name="r",
        title="r",
        created_by="m0",
        created_at=0,
        version=MEMBERS,
        participants=MEMBERS,
    )
    names = [f"m{number}" for number in range(MEMBERS)]
    state = json.dumps({"status": "x" * 1000})
    PresenceMember.objects.bulk_create(
        PresenceMember(room=room, member=name, name=name, state=state) for name in names
    )
    PresenceConnection.objects.bulk_create(
        PresenceConnection(room=room, member=name, connection=name, server="elsewhere")
        for name in names
    )


@pytest.mark.parametrize("kind", SERVERS)
async def test_members_of_crowded_room_come_in_several_frames(serve, api_key, kind):
    await sync_to_async(fill_room)()
    server = await call(serve, kind)
    async with connect(server.socket_url, api_key) as client:
        await client.send({"type": "join", "room": "r"})
        frame = await client.receive("joined")
        assert frame["participants"] == MEMBERS + 1
        members = frame["members"]
        while frame.get("more"):
            frame = await client.receive("members")
            members += frame["members"]
        assert len({member["id"] for member in members}) == len(members) == MEMBERS + 1
        await client.send({"type": "broadcast", "room": "r", "message": "hello"})
        assert (await client.receive("event"))["message"] == "hello"


async def test_frame_that_daphne_refuses_ends_the_connection(serve, api_key):
    """Otherwise the socket would stay open, and the client would wait for events in vain."""
    server = await call(serve, "daphne")
    async with connect(server.socket_url, api_key) as client:
        await client.subscribe("posts")
        await call(server.get, "/large-frame")
        assert await client.closed(5) == CloseCode.INTERNAL_ERROR
