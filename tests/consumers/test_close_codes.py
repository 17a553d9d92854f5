"""Terminal close codes only for permanent failures, also if requests are sent without waiting."""

import asyncio

import pytest

from django_cocobase_realtime.consumers import consumer as consumer_module
from django_cocobase_realtime.consumers.connection_refusals import (
    FIRST_DELAY_MS,
    LONGEST_DELAY_MS,
    ConnectionRefusals,
)
from django_cocobase_realtime.consumers.message_reader import MAX_MESSAGES
from django_cocobase_realtime.consumers.request_turns import Stage
from django_cocobase_realtime.wire.codes import CloseCode, Retry
from tests.support import failing_code
from tests.support.failing_code import AUTHENTICATOR, TestAuthenticator

pytestmark = pytest.mark.django_db(transaction=True)
SUBSCRIBE = {"type": "subscribe", "collection": "posts"}
ROOM = "/realtime/rooms/lobby"


@pytest.fixture
def configure(settings, monkeypatch):
    def configure(seconds=0.6, **limits):
        monkeypatch.setattr(TestAuthenticator, "seconds", seconds)
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {"posts": "app.Post"},
            "AUTHENTICATORS": [AUTHENTICATOR],
            "LIMITS": {"auth_timeout": 0.2, **limits},
        }

    return configure


async def closing_code(client):
    """Return the code in the last frame, which must be that of the close."""
    code = None
    while code is None:
        frame = await client.receive()
        assert frame.get("code") != "not_authenticated"
        code = frame["code"] if frame["type"] == "closing" else None
    assert await client.closed() == code
    return code


@pytest.mark.parametrize("pipelined", [0, 1, 2 * MAX_MESSAGES])
@pytest.mark.parametrize("token", ["down", "slow down", "keys"])
async def test_auth_without_database_or_key_server_closes_with_4101(
    realtime, configure, token, pipelined
):
    """Also if that takes longer than `auth_timeout`, which limits the client alone."""
    configure()
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": token})
        for _ in range(pipelined):
            await client.send(SUBSCRIBE)
        assert await closing_code(client) == 4101


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("token", ["down", "slow down", "keys"])
async def test_sdk_without_database_is_closed_with_4101(realtime, configure, token, pipelined):
    configure()
    async with realtime(path=ROOM, authenticate=False) as sdk:
        await sdk.send({"api_key": token, "action": "create"})
        if pipelined:
            await sdk.send({"type": "message", "content": "hi"})
        assert (await sdk.receive())["error"] == CloseCode.UNAVAILABLE.reason
        assert await sdk.closed() == 4101


@pytest.mark.parametrize("pipelined", [False, True])
async def test_slow_authentication_succeeds(realtime, configure, pipelined):
    configure()
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": "slow"})
        if pipelined:
            await client.send(SUBSCRIBE)
        await client.receive("authenticated")
        if not pipelined:
            await client.send(SUBSCRIBE)
        await client.receive("subscribed")
    async with realtime(path=ROOM, authenticate=False) as sdk:
        reply = await sdk.request({"api_key": "slow", "action": "create"})
        assert reply["event"] == "joined"


@pytest.mark.parametrize("pipelined", [False, True])
async def test_authentication_that_takes_too_long_closes_with_4101(
    realtime, configure, monkeypatch, pipelined
):
    configure(seconds=1.5)
    monkeypatch.setattr(consumer_module, "AUTHENTICATION_TIMEOUT", 0.4)
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": "slow"})
        if pipelined:
            await client.send(SUBSCRIBE)
        assert await closing_code(client) == 4101
    async with realtime(path=ROOM, authenticate=False) as sdk:
        await sdk.send({"api_key": "slow"})
        assert await sdk.closed() == 4101


async def test_client_whose_auth_waits_for_its_turn_is_not_closed(realtime, configure, monkeypatch):
    configure(seconds=0)

    async def wait_for_turn(stage):
        await asyncio.sleep(0.5 if stage is Stage.AUTHENTICATE else 0)

    monkeypatch.setattr(consumer_module, "wait_for_turn", wait_for_turn)
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": "slow"})
        await client.receive("authenticated")
    async with realtime(authenticate=False) as client:
        assert await closing_code(client) == 4501


async def test_client_without_auth_is_closed_with_4501(realtime, configure):
    configure()
    async with realtime(authenticate=False) as client:
        await client.send({"type": "ping"})
        await client.receive("pong")
        assert await closing_code(client) == 4501


async def test_time_limit_begins_again_after_failing_authenticator(realtime, configure):
    configure(auth_timeout=0.5)
    async with realtime(authenticate=False) as client:
        for _ in range(3):
            await asyncio.sleep(0.3)
            await client.send({"type": "auth", "token": "bug"})
            assert (await client.receive("error"))["code"] == "internal_error"
        assert await closing_code(client) == 4501


@pytest.mark.parametrize("pipelined", [False, True])
async def test_wrong_credential_closes_with_4500(realtime, configure, pipelined):
    configure()
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": "wrong"})
        if pipelined:
            await client.send(SUBSCRIBE)
        assert await closing_code(client) == 4500


async def test_request_before_any_auth_closes_with_4502(realtime, configure):
    configure()
    async with realtime(authenticate=False) as client:
        await client.send(SUBSCRIBE)
        await client.send({"type": "auth", "token": "ada"})
        assert (await client.receive())["code"] == "not_authenticated"
        assert await closing_code(client) == 4502


@pytest.mark.parametrize("pipelined", [False, True])
async def test_too_many_connections_of_a_user_may_try_again_later_each_time(
    realtime, configure, pipelined
):
    configure(connections_per_user=1)
    assert CloseCode.CONNECTION_LIMIT.retry is Retry.BACKOFF
    consumer_module.connection_refusals.forget(("default", "1"))
    delays = []
    async with realtime(token="ada"):
        for _ in range(3):
            async with realtime(authenticate=False) as second:
                await second.send({"type": "auth", "token": "ada"})
                if pipelined:
                    await second.send(SUBSCRIBE)
                closing = await second.receive("closing")
                assert closing["code"] == await second.closed() == 4504
                delays.append(closing["retry_after_ms"])
    assert delays == [5000, 10_000, 20_000]
    async with realtime(token="ada"), realtime(authenticate=False) as second:
        await second.send({"type": "auth", "token": "ada"})
        assert (await second.receive("closing"))["retry_after_ms"] == 5000


def test_delay_of_refused_connections_is_bounded_and_forgotten():
    refusals = ConnectionRefusals()
    delays = [refusals.next_delay_ms("ada", 0.0) for _ in range(20)]
    assert delays[-1] == LONGEST_DELAY_MS
    assert refusals.next_delay_ms("bob", 0.0) == FIRST_DELAY_MS
    assert refusals.next_delay_ms("ada", 3 * LONGEST_DELAY_MS / 1000) == FIRST_DELAY_MS


async def test_requests_behind_a_failed_request_are_ignored(realtime, configure, monkeypatch):
    configure()

    def grant(self, identity, filters, key_set=None):
        raise failing_code.OPERATIONAL_ERROR

    from django_cocobase_realtime.declarations.collection import Collection

    async with realtime(token="ada") as client:
        monkeypatch.setattr(Collection, "grant", grant)
        await client.send(SUBSCRIBE)
        await client.send({"type": "join", "room": "lobby"})
        await client.send({"type": "ping"})
        assert (await client.receive())["code"] == 4101
        assert await client.closed() == 4101
