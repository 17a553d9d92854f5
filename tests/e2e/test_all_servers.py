"""Each ASGI server of the deployment guide, started by the command there."""

import asyncio
import json
import os
import signal
import time
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed

from django_cocobase_realtime.models import ApiKey
from tests.app.models import Post
from tests.support.client import connect
from tests.support.narrow_sockets import open_narrow_socket
from tests.support.servers import (
    ALL_SERVERS,
    OTHER_SERVERS,
    SERVERS,
    WORKER_MODULE,
    documented_commands,
)
from tests.support.threads import call

pytestmark = pytest.mark.server
# options by which each server gets the prefix of the site
PREFIX = {
    "daphne": ["--root-path", "/app"],
    "uvicorn": ["--root-path", "/app"],
    "hypercorn": ["--root-path", "/app"],
    "granian": ["--url-path-prefix", "/app"],
    "gunicorn": [],
}
SCRIPT_NAME = {"gunicorn": "/app"}
# seconds in which a server ends that drains two connections
SHUTDOWN_TIMEOUT = 8


def test_each_server_has_one_documented_command():
    commands = documented_commands()
    assert sorted(commands) == sorted([*SERVERS, *OTHER_SERVERS])
    assert all("8001" in " ".join(command) for command in commands.values())
    assert f"{WORKER_MODULE}.RealtimeWorker" in commands["gunicorn"]


def request(server, path, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    url = f"http://127.0.0.1:{server.port}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=5) as response:
        return response.read().decode()


@pytest.mark.parametrize("kind", ALL_SERVERS)
async def test_whole_flow_with_and_without_prefix(serve, transactional_db, kind):
    key = (await call(lambda: ApiKey.objects.create_key("test", can_publish=True)))[1]
    old = await Post.objects.acreate(title="old")
    server = await call(
        lambda: serve(kind, options=PREFIX[kind], script_name=SCRIPT_NAME.get(kind, ""))
    )
    prefixed = server.socket_url.replace("/realtime", "/app/realtime")
    # uvicorn puts its prefix before each path, so a proxy must have removed it
    urls = [server.socket_url, server.socket_url if kind == "uvicorn" else prefixed]

    # a page of the site loads the client, which connects under the prefix
    assert 'data-realtime-url="/app/realtime/"' in await call(request, server, "/live")

    async with connect(urls[0], key) as client, connect(urls[1] + "/", key) as other:
        cursor = (await client.subscribe("posts", snapshot=True))["cursor"]
        frame = await client.receive("snapshot")
        assert [document["id"] for document in frame["documents"]] == [str(old.pk)]
        await other.subscribe("posts", filters={"status": "published"})

        posts = [{"title": f"{n}", "status": "published"} for n in range(3)] + [{"title": "draft"}]
        await call(server.post, "/posts", posts)
        titles = ["0", "1", "2", "draft"]
        for receiver, expected in ((client, titles), (other, titles[:3])):
            events = [await receiver.receive("event") for _ in expected]
            assert [event["document"]["data"]["title"] for event in events] == expected

        # resume
        await other.subscribe("posts", since=cursor)
        events = [await other.receive("event") for _ in titles]
        assert [event["document"]["data"]["title"] for event in events] == titles

        # rooms, from a client, by HTTP and by code of the project
        await client.send({"type": "join", "room": "news"})
        assert (await client.receive("joined"))["participants"] == 1
        await other.send({"type": "join", "room": "news"})
        assert (await other.receive("joined"))["participants"] == 2
        assert (await client.receive("presence"))["participants"] == 2
        await other.send({"type": "broadcast", "room": "news", "message": 1, "echo": False})
        assert (await client.receive("event"))["message"] == 1
        body = {"room": "news", "message": 2}
        reply = await call(lambda: request(server, "/realtime/publish", body, **{"X-API-Key": key}))
        assert json.loads(reply) == {"sent": 1}
        await call(server.post, "/broadcast", "hello")
        for client_in_room in (client, other):
            messages = [(await client_in_room.receive("event"))["message"] for _ in range(2)]
            assert messages == [2, {"text": "hello"}]

        # the dialect of the SDKs
        url = f"{urls[1]}/collections/posts"
        async with connect(url, authenticate=False) as sdk:
            reply = await sdk.request({"api_key": key, "filters": {"title": "for the SDK"}})
            assert reply["event"] == "connected"
            await Post.objects.acreate(title="for the SDK")
            assert (await sdk.receive())["data"]["data"]["title"] == "for the SDK"

        # a message that the server does not accept, sent by a client that is not authenticated
        async with connect(urls[0], authenticate=False) as flooding:
            try:
                await flooding.send('"' + "x" * 2 * 1024 * 1024 + '"')
                reply = await flooding.receive()
                assert (kind, reply["code"]) == ("granian", "too_large")
            except ConnectionClosed as error:
                assert error.rcvd is None or error.rcvd.code == 1009
        assert (await client.receive("event"))["document"]["data"]["title"] == "for the SDK"
        assert (await client.request({"type": "ping"}))["type"] == "pong"
        if kind != "granian":
            assert "fill the memory" not in server.log.read_text()

        began = time.monotonic()
        os.kill(server.process.pid, signal.SIGTERM)
        assert await asyncio.gather(client.closed(), other.closed()) == [4200, 4200]
        await asyncio.to_thread(server.process.wait, SHUTDOWN_TIMEOUT)
        assert time.monotonic() - began < SHUTDOWN_TIMEOUT
    log = server.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]


@pytest.mark.parametrize("kind", ALL_SERVERS)
async def test_client_that_stops_reading_is_disconnected_without_affecting_others(
    serve, api_key, kind
):
    limits = {"queue_bytes": 100_000, "event_bytes": 1_000_000}
    server = await call(lambda: serve(kind, settings={"LIMITS": limits}))
    async with (
        connect(server.socket_url, api_key, compression=None) as reader,
        connect(
            server.socket_url,
            api_key,
            compression=None,
            max_queue=1,
            sock=open_narrow_socket(server.port),
        ) as stalled,
    ):
        await reader.subscribe("posts")
        await stalled.subscribe("posts")
        for number in range(60):  # 12 MB, more than any socket's buffers
            await call(server.post, "/posts", [{"title": str(number), "body": "x" * 200_000}])
            event = await reader.receive("event")
            assert event["document"]["data"]["title"] == str(number)
        assert await stalled.closed(20) == 4120
