"""Promise 3: a refusal that passes is waited out.

A client must:

- Send no more requests of a kind than the rates in ``limits`` allow, in their order: a burst, and
  then so many per second. ``subscribe`` and ``broadcast`` have rates of their own.
- Wait ``retry_after_ms`` after ``rate_limited``, for broadcasts, states, subscriptions and joins
  alike, and send again in the same order. A call settles when the request was accepted.
- Of the states of a room, send the newest when there is room for it. Calls for older states settle
  with it.
- Not send a subscription that was stopped before it was sent.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import accept_join, start_client, start_room
from tests.clients.scripted_server import LIMITS, Connection, ScriptedServer

# rates (per second, burst) so high that scenarios are short, and bursts smaller than the queues
RATES = {"messages_rate": [40, 8], "subscribe_rate": [40, 8], "broadcast_rate": [40, 8]}
# consecutive refusals after which a server closes the connection
MAX_REFUSALS = 10


class Bucket:
    """A rate limit like the server's, which counts refusals in a row."""

    def __init__(self, rate: list[float]) -> None:
        self.per_second, self.burst = rate
        self.tokens = float(self.burst)
        self.updated_at = time.monotonic()

    def acquire(self) -> int:
        """Take a token and return 0; if there is none, return the milliseconds until the next."""
        now = time.monotonic()
        self.tokens = min(self.burst, self.tokens + (now - self.updated_at) * self.per_second)
        self.updated_at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0
        return math.ceil((1 - self.tokens) / self.per_second * 1000) + 1


class RatedServer:
    """Answers the requests of one connection, and refuses those over a rate."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # requests that were accepted
        self.accepted: list[dict[str, Any]] = []
        # requests that were refused
        self.refused: list[dict[str, Any]] = []
        # names of the current subscriptions
        self.subscriptions: set[str] = set()
        self._buckets = {name: Bucket(rate) for name, rate in RATES.items()}
        self._refusals_in_a_row = 0

    async def answer_until(self, condition: Callable[[], bool]) -> None:
        """Answer requests until a condition is true."""
        async with asyncio.timeout(20):
            while not condition():
                await self._answer(await self.connection.receive_any())

    async def answer_for(self, seconds: float) -> None:
        """Answer requests for some time."""
        while (request := await self.connection.receive_within(seconds)) is not None:
            await self._answer(request)

    async def _answer(self, request: dict[str, Any]) -> None:
        kind = request["type"]
        bucket = self._buckets.get(f"{kind}_rate", self._buckets["messages_rate"])
        if delay := bucket.acquire():
            self.refused.append(request)
            self._refusals_in_a_row += 1
            assert self._refusals_in_a_row < MAX_REFUSALS, "The server would close the connection."
            await self.connection.reply_error(request, "rate_limited", retry_after_ms=delay)
            return
        self._refusals_in_a_row = 0
        self.accepted.append(request)
        if kind == "subscribe":
            self.subscriptions.add(request["subscription"])
            await self.connection.reply_subscribed(request, cursor="c0", scope="s")
        elif kind == "unsubscribe":
            if request["subscription"] in self.subscriptions:
                self.subscriptions.remove(request["subscription"])
                await self.connection.reply(request, "unsubscribed")
            else:
                await self.connection.reply_error(request, "not_subscribed")
        elif kind == "join":
            members = {"members": [], "participants": 1}
            await self.connection.reply(request, "joined", room=request["room"], **members)
        else:
            reply = {"broadcast": "sent", "leave": "left"}.get(kind, kind)
            await self.connection.reply(request, reply, room=request["room"])


async def broadcasts_queued_offline_are_sent_at_the_allowed_rate(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    numbers = list(range(50))
    await client.do_at_once("broadcast", ["r"] * 50, message=numbers, tag=numbers)
    rated = RatedServer(await server.accept_authenticated(limits={**LIMITS, **RATES}))
    await rated.answer_until(lambda: len(rated.accepted) == 51)
    assert [request["message"] for request in rated.accepted[1:]] == numbers
    for n in range(50):
        await client.wait_for("r", "sent", tag=n)
    assert server.count == 1


async def broadcasts_at_once_are_sent_in_order_at_the_allowed_rate(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client, limits={**LIMITS, **RATES})
    rated = RatedServer(connection)
    numbers = list(range(50))
    await client.do_at_once("broadcast", ["r"] * 50, message=numbers, tag=numbers)
    await rated.answer_until(lambda: len(rated.accepted) == 50)
    assert [request["message"] for request in rated.accepted] == numbers
    for n in range(50):
        await client.wait_for("r", "sent", tag=n)


async def broadcast_is_sent_again_after_the_requested_delay(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    for n in range(3):
        await client.do("broadcast", "r", message=n, tag=n)
    refused = [await connection.receive("broadcast")]
    for request in refused:
        await connection.reply_error(request, "rate_limited", retry_after_ms=2000)
    began = time.monotonic()
    # a client may have sent the others before it knew about the refusal
    while (request := await connection.receive_within(1)) is not None:
        refused.append(request)
        await connection.reply_error(request, "rate_limited", retry_after_ms=2000)
        began = time.monotonic()
    for n in range(3):
        request = await connection.receive("broadcast")
        assert request["message"] == n
        if n == 0:
            assert time.monotonic() - began > 1.9
            assert request["idempotency_key"] == refused[0]["idempotency_key"]
        await connection.reply(request, "sent", room="chat")
        await client.wait_for("r", "sent", tag=n)
    await connection.receive_nothing()


async def state_is_sent_again_after_the_requested_delay(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    await client.do("state", "r", state={"n": 1})
    refusal = {"retry_after_ms": 400}
    await connection.reply_error(await connection.receive("state"), "rate_limited", **refusal)
    began = time.monotonic()
    request = await connection.receive("state")
    assert time.monotonic() - began > 0.35
    assert request["state"] == {"n": 1}
    await connection.reply(request, "state", room="chat")
    await client.wait_for("r", "state", state={"n": 1})
    await connection.receive_nothing()


async def newest_of_many_states_arrives(server: ScriptedServer, client: Driver) -> None:
    connection = await start_room(server, client, limits={**LIMITS, **RATES})
    rated = RatedServer(connection)
    await client.do_at_once("state", ["r"] * 48, state=[{"n": n} for n in range(48)])
    newest = {"n": 47}
    await rated.answer_until(lambda: [r["state"] for r in rated.accepted][-1:] == [newest])
    await rated.answer_for(0.5)
    assert [request["state"] for request in rated.accepted][-1] == newest
    for n in range(48):
        await client.wait_for("r", "state", state={"n": n})
    await client.do("members", "r")
    await client.wait_for("r", "members", state=newest)


async def newer_state_replaces_a_refused_one(server: ScriptedServer, client: Driver) -> None:
    connection = await start_room(server, client)
    await client.do("state", "r", state={"n": 1})
    request = await connection.receive("state")
    await connection.reply_error(request, "rate_limited", retry_after_ms=2000)
    await client.do("state", "r", state={"n": 2})
    request = await connection.receive("state")
    assert request["state"] == {"n": 2}
    await connection.reply(request, "state", room="chat")
    await client.wait_for("r", "state", state={"n": 2})
    await connection.receive_nothing(0.7)


async def many_components_that_come_and_go_do_not_cut_the_connection(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    connection = await server.accept_authenticated(limits={**LIMITS, **RATES})
    await client.wait_for("db", "status", status="live")
    rated = RatedServer(connection)
    await client.do("mount", "m", collection="posts", count=300)
    await client.wait_for("m", "mounted")
    await client.do("watch", "w", collection="posts")

    def is_watching() -> bool:
        return any(
            request["type"] == "subscribe" and not request.get("filters")
            for request in rated.accepted
        )

    await rated.answer_until(is_watching)
    await client.wait_for("w", "ready")
    await rated.answer_for(0.7)
    assert len(rated.subscriptions) == 1
    assert server.count == 1


async def many_subscriptions_are_requested_at_the_allowed_rate(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    names = [f"w{n}" for n in range(40)]
    await client.do_at_once("watch", names, collection=["posts"] * 40)
    rated = RatedServer(await server.accept_authenticated(limits={**LIMITS, **RATES}))
    await rated.answer_until(lambda: len(rated.subscriptions) == 40)
    for name in names:
        await client.wait_for(name, "ready")
    assert server.count == 1


async def subscription_stopped_without_a_connection_is_not_requested(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("mount", "m", collection="posts", count=3)
    await client.wait_for("m", "mounted")
    connection = await server.accept_authenticated()
    await connection.receive_nothing()


async def join_is_sent_again_after_the_requested_delay(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.accept_authenticated()
    refusal = {"retry_after_ms": 400}
    await connection.reply_error(await connection.receive("join"), "rate_limited", **refusal)
    began = time.monotonic()
    await accept_join(connection)
    assert time.monotonic() - began > 0.35
    await client.wait_for("r", "ready")


async def refused_update_is_repeated_after_the_requested_delay(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.accept_authenticated()
    await connection.reply_subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.wait_for("w", "ready")
    await client.do("update", "w", options={"filters": {"n": 2}})
    request = await connection.receive("subscribe")
    await connection.reply_error(request, "rate_limited", retry_after_ms=300)
    request = await connection.receive("subscribe")
    assert request["filters"] == {"n": 2}
    await connection.reply_subscribed(request, cursor="c1")
    await client.wait_for("w", "ready")


async def broadcasts_that_are_too_large_do_not_block_others(
    server: ScriptedServer, client: Driver
) -> None:
    """More than the burst of the rate: a request that was not sent gets no reply."""
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    for n in range(30):
        await client.do("broadcast", "r", message="$long", tag=str(n))
    await client.do("broadcast", "r", message="good", tag="good")
    connection = await server.accept_authenticated()
    await accept_join(connection)
    for n in range(30):
        await client.wait_for("r", "failed", tag=str(n), code="too_large")
    request = await connection.receive("broadcast")
    assert request["message"] == "good"
    await connection.reply(request, "sent", room="chat")
    await client.wait_for("r", "sent", tag="good")
