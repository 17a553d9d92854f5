"""The whole path with daphne and uvicorn, real sockets and each channel layer."""

import asyncio
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from websockets.exceptions import InvalidStatus

from tests.app.models import Post
from tests.support.client import connect
from tests.support.node import require_node
from tests.support.servers import SERVERS
from tests.support.threads import call

pytestmark = pytest.mark.server


@pytest.fixture(params=["memory", "core", "pubsub"])
def layers(request):
    if request.param == "memory":
        return None
    return request.getfixturevalue("redis").layer(request.param)


@pytest.mark.parametrize("kind", SERVERS)
async def test_save_in_server_is_sent_to_its_clients(serve, api_key, layers, kind):
    server = await call(lambda: serve(kind, layers=layers))
    async with connect(server.socket_url + "/", api_key) as client:
        await client.subscribe("posts", filters={"status": "published"})
        await client.send({"type": "join", "room": "news"})
        assert (await client.receive("joined"))["participants"] == 1
        posts = [{"title": f"{n}", "status": "published"} for n in range(5)]
        response = await call(server.post, "/posts", [*posts, {"title": "draft"}])
        events = [await client.receive("event") for _ in range(5)]
        assert [e["document"]["data"]["title"] for e in events] == ["0", "1", "2", "3", "4"]
        assert [e["document"]["id"] for e in events] == [str(i) for i in response["ids"][:5]]
        assert len({e["transaction"] for e in events}) == 1
        await call(server.post, "/broadcast", "hello")
        event = await client.receive("event")
        assert (event["event"], event["message"]) == ("broadcast", {"text": "hello"})
        assert event["sender"] is None
        assert await client.receive_nothing()


@pytest.mark.parametrize("layer", ["core", "pubsub"])
async def test_two_servers_and_a_writer_share_one_redis(serve, api_key, redis, layer, settings):
    settings.CHANNEL_LAYERS = redis.layer(layer)
    one = await call(lambda: serve("daphne", layers=redis.layer(layer)))
    two = await call(lambda: serve("uvicorn", layers=redis.layer(layer)))
    async with (
        connect(one.socket_url, api_key) as first,
        connect(two.socket_url, api_key) as second,
    ):
        for client in (first, second):
            await client.subscribe("posts")
            await client.send({"type": "join", "room": "r"})
            await client.receive("joined")
        assert (await first.receive("presence"))["participants"] == 2
        await call(one.post, "/posts", [{"title": "from one"}])
        await Post.objects.acreate(title="from a writer without sockets")
        for client in (first, second):
            titles = {(await client.receive("event"))["document"]["data"]["title"] for _ in "ab"}
            assert titles == {"from one", "from a writer without sockets"}
        await second.send({"type": "broadcast", "room": "r", "message": {"n": 1}})
        assert (await first.receive("event"))["message"] == {"n": 1}
        assert (await second.receive("event"))["message"] == {"n": 1}


@pytest.mark.parametrize("layer", ["core", "pubsub"])
async def test_connections_survive_a_killed_redis(serve, api_key, redis, layer):
    server = await call(lambda: serve("uvicorn", layers=redis.layer(layer)))
    async with connect(server.socket_url, api_key) as client:
        await client.subscribe("posts")
        await call(redis.kill)
        response = await call(server.post, "/posts", [{"title": "during the outage"}])
        assert response["ids"]
        await call(redis.start)
        async with asyncio.timeout(30):
            while True:
                await call(server.post, "/posts", [{"title": "after the outage"}])
                try:
                    event = await client.receive("event", timeout=0.5)
                except TimeoutError:
                    continue
                if event["document"]["data"]["title"] == "after the outage":
                    break
        assert (await client.request({"type": "ping"}))["type"] in {"pong", "event"}


@pytest.mark.parametrize("kind", SERVERS)
async def test_writer_without_hub_is_not_blocked_by_unavailable_redis(serve, redis, settings, kind):
    settings.CHANNEL_LAYERS = redis.layer("core")
    await call(redis.kill)
    async with asyncio.timeout(2):
        for number in range(50):
            await Post.objects.acreate(title=str(number))


@pytest.mark.parametrize("kind", SERVERS)
async def test_origin_decides_about_session_authentication(serve, api_key, user, kind, client):
    server = await call(lambda: serve(kind, settings={"ALLOWED_ORIGINS": ["http://127.0.0.1"]}))
    with pytest.raises(InvalidStatus) as refused:
        async with connect(server.socket_url, api_key, origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    # a key is accepted without an Origin header, as outside of browsers
    async with connect(server.socket_url, api_key):
        pass
    await sync_to_async(client.force_login)(user)
    cookie = {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}
    options = {"additional_headers": cookie, "authenticate": False}
    async with connect(server.socket_url, **options) as without_origin:
        await without_origin.send({"type": "auth"})
        assert (await without_origin.receive("error"))["code"] == "authentication_failed"
        assert await without_origin.closed() == 4500
    async with connect(server.socket_url, origin="http://127.0.0.1", **options) as page:
        await page.send({"type": "auth"})
        reply = await page.receive("authenticated")
        assert reply["user"] == {"id": str(user.pk), "name": "ada"}
        await sync_to_async(client.logout)()
        assert await page.closed(6) == 4500


@pytest.mark.parametrize("kind", SERVERS)
async def test_malformed_frames_are_answered_with_bad_request(serve, api_key, kind):
    server = await call(lambda: serve(kind, settings={"LIMITS": {"bad_requests_per_minute": 50}}))
    bad = [b"\x00\xff", "", "null", "{", '{"type":"auth","token":{}}', '{"a":' * 5000, "9" * 5000]
    bad += [
        '{"type":"ping","x":NaN}',
        '{"type":"ping","type":"ping"}',
        '{"type":"ping","x":"\\u0000"}',
    ]
    async with connect(server.socket_url, api_key) as client:
        for frame in bad:
            reply = await client.request(frame)
            assert reply["type"] == "error", frame
            assert reply["code"] == "bad_request"
            assert (await client.request("ping")) == {"type": "pong"}


@pytest.mark.parametrize("kind", SERVERS)
async def test_public_page_example_works(serve, api_key, kind):
    node = require_node()
    server = await call(lambda: serve(kind))
    script = Path(__file__).parent / "page_example.mjs"
    process = await asyncio.create_subprocess_exec(
        *(node, "--experimental-websocket", str(script), server.socket_url, api_key),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(20):
            while b"ready" not in (line := await process.stderr.readline()):
                assert line, "Node ended"
            await call(server.post, "/messages", "Hello from Django")
            assert await process.stdout.readline() == b"New message: Hello from Django\n"
    finally:
        process.kill()
        await process.communicate()
