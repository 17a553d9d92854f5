"""One client keeps the server's threads busy: others log in and subscribe nevertheless.

Slow code takes longer than a login may, so that a login which waits for it fails the test.
"""

import asyncio
from contextlib import AsyncExitStack

import pytest

from django_cocobase_realtime.models import ApiKey
from tests.app.models import Post
from tests.support.failing import SECONDS
from tests.support.threads import call

from .helpers import ATTACKER, attack, connect, receive_answers, slowest_login, time_login

pytestmark = pytest.mark.server
FAILING = "tests.support.failing"
AUTHENTICATORS = [
    f"{FAILING}.SlowAuthenticator",
    "django_cocobase_realtime.auth.api_key.ApiKeyAuthenticator",
]
COLLECTIONS = {
    "posts": "app.Post",
    "slow": {"model": "app.Message", "permission": f"{FAILING}.Slow"},
    "rows": {"model": "app.Post", "permission": f"{FAILING}.SlowRow"},
}
ROOMS = {"slow-*": {"permission": f"{FAILING}.SlowRoom"}, "*": {}}
# a login on the busy machine of a test, without waiting for slow code
LOGIN_SECONDS = 0.8 * SECONDS
SUBSCRIBE_SLOW = {"type": "subscribe", "collection": "slow"}


async def send_from(stack, url, token, connections, frames):
    """Send the same frames on several connections of the attacker, and read no reply."""
    clients = []
    for _ in range(connections):
        client = await stack.enter_async_context(attack(url, token, max_queue=None))
        clients.append(client)
        for number, frame in enumerate(frames):
            await client.send({**frame, "id": number})
    return clients


def count_calls(server, name):
    return server.log.read_text().count(f"called {name}")


async def wait_for_call(server, name):
    async with asyncio.timeout(10):
        while not await call(count_calls, server, name):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", ["permission", "room"])
async def test_slow_permission_delays_no_login(start, api_key, name):
    server = await start(COLLECTIONS=COLLECTIONS, ROOMS=ROOMS)
    frame = {"type": "join", "room": "slow-1"} if name == "room" else SUBSCRIBE_SLOW
    async with AsyncExitStack() as stack:
        await send_from(stack, server.socket_url, api_key, 10, [frame] * 5)
        await wait_for_call(server, name)
        assert await slowest_login(server.socket_url, api_key) < LOGIN_SECONDS


async def test_row_permission_of_many_snapshots_delays_no_login(start, api_key):
    server = await start(COLLECTIONS=COLLECTIONS)
    await Post.objects.abulk_create([Post(title=str(n)) for n in range(300)])
    frame = {"type": "subscribe", "collection": "rows", "snapshot": True}
    frames = [{**frame, "subscription": f"s{n}"} for n in range(30)]
    async with AsyncExitStack() as stack:
        await send_from(stack, server.socket_url, api_key, 1, frames)
        await wait_for_call(server, "row")
        assert await slowest_login(server.socket_url, api_key) < LOGIN_SECONDS


async def test_slow_authentication_of_strangers_delays_no_request(start, api_key):
    """Requests of clients that are authenticated already do not wait for authentication."""
    server = await start(COLLECTIONS=COLLECTIONS, AUTHENTICATORS=AUTHENTICATORS)
    async with AsyncExitStack() as stack:
        visitor = await stack.enter_async_context(connect(server.socket_url, api_key))
        for number in range(10):
            stranger = await stack.enter_async_context(attack(server.socket_url))
            await stranger.send({"type": "auth", "token": f"slow {number}"})
        await wait_for_call(server, "authenticator")
        async with asyncio.timeout(LOGIN_SECONDS):
            await visitor.subscribe("posts")


@pytest.mark.parametrize("waits", [True, False], ids=["after replies", "pipelined"])
async def test_work_for_a_client_ends_when_it_disconnects(start, api_key, waits):
    server = await start(COLLECTIONS=COLLECTIONS)
    await Post.objects.abulk_create([Post(title=str(n)) for n in range(50)])
    frame = {"type": "subscribe", "collection": "rows", "snapshot": True}
    frames = [{**frame, "subscription": f"s{n}"} for n in range(8 if waits else 30)]
    async with AsyncExitStack() as stack:
        (client,) = await send_from(stack, server.socket_url, api_key, 1, frames)
        if waits:
            await receive_answers(client, len(frames), 40)
        await wait_for_call(server, "row")
    await asyncio.sleep(2.5)  # the pages that are being checked take 1 s
    before = await call(count_calls, server, "row")
    await asyncio.sleep(1)
    assert await call(count_calls, server, "row") == before < len(frames) * 50


async def test_requests_of_a_client_that_left_are_not_handled(start, api_key):
    server = await start(COLLECTIONS=COLLECTIONS)
    async with AsyncExitStack() as stack:
        frames = [SUBSCRIBE_SLOW] * 2
        clients = await send_from(stack, server.socket_url, api_key, 10, frames)
        await wait_for_call(server, "permission")
        for client in clients:
            client.socket.transport.abort()
    # what runs or was about to run is not counted
    await asyncio.sleep(SECONDS + 0.2)
    before = await call(count_calls, server, "permission")
    await asyncio.sleep(2 * SECONDS)
    assert await call(count_calls, server, "permission") == before <= 10


async def test_unauthenticated_connections_of_one_address_shut_out_no_other(start, api_key):
    server = await start()
    async with AsyncExitStack() as stack:
        silent = [
            await stack.enter_async_context(attack(server.socket_url, max_queue=None))
            for _ in range(30)
        ]
        assert await time_login(server.socket_url, api_key) < 5
        codes = [await client.closed(0.5) for client in silent[10:]]
        assert set(codes) == {4131}


async def test_users_without_connections_left_can_come_back(start, user):
    """4504 has the time after which to come back; a closed connection frees its place."""
    server = await start(LIMITS={"connections_per_user": 3})
    _, key = await call(lambda: ApiKey.objects.create_key("ada", user=user))
    async with AsyncExitStack() as stack:
        for _ in range(3):
            last = await stack.enter_async_context(connect(server.socket_url, key))
        refused = await stack.enter_async_context(attack(server.socket_url, local_addr=ATTACKER))
        await refused.send({"type": "auth", "token": key})
        frames = [await refused.receive()]
        assert frames[-1]["type"] == "closing", frames
        assert frames[-1]["code"] == 4504
        assert frames[-1]["retry_after_ms"] > 0
        await last.socket.close()
        assert await time_login(server.socket_url, key) < 5
