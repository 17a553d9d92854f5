"""Errors in the server's code: they are reported, and requests are repeated, later each time."""

from __future__ import annotations

import asyncio
import time

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import accept_join, accept_reconnect, start_client, start_room
from tests.clients.scripted_server import Connection, ScriptedServer, change_event


async def fail_repeatedly(connection: Connection, type: str, times: int) -> list[float]:
    """Answer requests with ``internal_error``; return the seconds until each next request."""
    delays = []
    request = await connection.receive(type)
    for _ in range(times):
        await connection.reply_error(request, "internal_error")
        began = time.monotonic()
        request = await connection.receive(type)
        delays.append(time.monotonic() - began)
    connection.request = request
    return delays


async def failed_subscription_is_reported_and_requested_again(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts")
    connection = await server.accept_authenticated()
    delays = await fail_repeatedly(connection, "subscribe", 2)
    assert delays[0] > 0.9, delays
    assert delays[1] > 1.8, delays
    await client.wait_for("l", "error", code="internal_error")
    await client.wait_for("l", "failed", code="internal_error")
    await connection.reply_subscribed(connection.request, cursor="c0", scope="s")
    await connection.send_snapshot(connection.request, ("1", {"n": 1}), cursor="c0")
    await client.wait_for("l", "documents", documents=[["1", {"n": 1}]])
    assert server.count == 1


async def subscription_that_ends_with_an_error_resumes_later(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts")
    await client.do("watch", "w", collection="messages")
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    other = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {"n": 1}), cursor="c0")
    await connection.reply_subscribed(other, cursor="d0", scope="t")
    await client.wait_for("l", "documents", documents=[["1", {"n": 1}]])
    ended = {"type": "error", "code": "internal_error", "message": "No."}
    await connection.send({**ended, "subscription": request["subscription"]})
    began = time.monotonic()
    await client.wait_for("l", "error", code="internal_error")
    await connection.send(change_event(other, "created", "5", "d1"))
    await client.wait_for("w", "event", id="5")
    again = await connection.receive("subscribe")
    assert time.monotonic() - began > 0.9
    # the documents were kept, so the client continues from their position
    assert again["subscription"] == request["subscription"]
    assert (again["since"], again["scope"]) == ("c0", "s")
    await connection.reply_subscribed(again, cursor="c0", scope="s", resumed=True)
    await connection.send(change_event(again, "created", "2", "c1", n=2))
    await client.wait_for("l", "documents", documents=[["1", {"n": 1}], ["2", {"n": 2}]])
    assert server.count == 1


async def failed_update_keeps_the_old_subscription(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.accept_authenticated()
    first = await connection.receive("subscribe")
    await connection.reply_subscribed(first, cursor="c0", scope="s")
    await client.do("update", "w", options={"filters": {"n": 2}})
    await connection.reply_error(await connection.receive("subscribe"), "internal_error")
    await client.wait_for("w", "failed", code="internal_error")
    await connection.send(change_event(first, "created", "1", "c1"))
    await client.wait_for("w", "event", id="1")
    await connection.receive_nothing(1.5)


async def failed_join_is_reported_and_requested_again(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    await client.do("broadcast", "r", message="x", tag="a")
    connection = await server.accept_authenticated()
    delays = await fail_repeatedly(connection, "join", 2)
    assert delays[0] > 0.9, delays
    assert delays[1] > 1.8, delays
    await client.wait_for("r", "failed", code="internal_error")
    members = [{"id": "7", "name": "ada", "state": {}}]
    await connection.reply(
        connection.request, "joined", room="chat", participants=1, members=members
    )
    broadcast = await connection.receive("broadcast")  # it waited for the room
    await connection.reply(broadcast, "sent", room="chat")
    await client.wait_for("r", "sent", tag="a")
    # the permission may also fail later, when it is evaluated again
    ended = {"type": "error", "code": "internal_error", "message": "No.", "room": "chat"}
    await connection.send(ended)
    began = time.monotonic()
    await connection.receive("join")
    assert time.monotonic() - began > 0.9


async def room_left_after_failure_is_not_joined_again(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.accept_authenticated()
    # long enough for a busy machine
    refusal = {"retry_after_ms": 3000}
    await connection.reply_error(await connection.receive("join"), "internal_error", **refusal)
    await client.wait_for("r", "failed", code="internal_error")
    await client.do("leave", "r")
    await connection.receive("leave")
    await connection.receive_nothing(3.5)


async def broadcasts_of_a_room_that_fails_are_sent_after_the_next_join(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    ended = {"type": "error", "code": "internal_error", "message": "No.", "room": "chat"}
    # one waits for its turn when the room fails
    await client.do("broadcast", "r", message="waits", tag="waits")
    first = await connection.receive("broadcast")
    await connection.reply_error(first, "rate_limited", retry_after_ms=300)
    await asyncio.sleep(0.1)
    await connection.send(ended)
    await accept_join(connection)
    again = await connection.receive("broadcast")
    assert again["idempotency_key"] == first["idempotency_key"]
    await connection.reply(again, "sent", room="chat")
    await client.wait_for("r", "sent", tag="waits")
    # another one arrives at a server that has just ended the room
    await client.do("broadcast", "r", message="late", tag="late")
    first = await connection.receive("broadcast")
    await connection.send(ended)
    await connection.reply_error(first, "not_joined")
    await accept_join(connection)
    again = await connection.receive("broadcast")
    assert again["idempotency_key"] == first["idempotency_key"]
    await connection.reply(again, "sent", room="chat")
    await client.wait_for("r", "sent", tag="late")


async def room_that_fails_twice_is_joined_once(server: ScriptedServer, client: Driver) -> None:
    connection = await start_room(server, client)
    ended = {"type": "error", "code": "internal_error", "message": "No.", "room": "chat"}
    await connection.send(ended, ended)
    await accept_join(connection)
    await connection.receive_nothing(4.5)


async def failed_auth_causes_a_reconnect_with_growing_delay(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, tokens=["first", "second", "third"], random=0.5)
    for number, token in enumerate(("first", "second")):
        connection = await server.accept()
        auth = await connection.receive("auth")
        assert auth["token"] == token
        await connection.reply_error(auth, "internal_error", retry_after_ms=400)
        await client.wait_for("db", "error", code="internal_error")
        note = await client.wait_for("db", "status", status="waiting")
        assert abs(note["delay"] - (0.4 + 0.25 * 2**number)) < 1e-9, note
        await asyncio.wait_for(connection.closed.wait(), 5)
    connection = await server.accept_authenticated()
    assert connection.auth["token"] == "third"
    await client.wait_for("db", "status", status="live")


async def too_many_connections_cause_a_reconnect(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, random=0.5)
    connection = await server.accept()
    await connection.receive("auth")
    await connection.close(4504, 300)
    note = await client.wait_for("db", "status", status="waiting")
    assert abs(note["delay"] - 0.55) < 1e-9, note
    await server.accept_authenticated()
    await client.wait_for("db", "status", status="live")


async def document_of_failed_serializer_is_marked(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts")
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {"n": 1}), cursor="c0")
    await client.wait_for("l", "documents", documents=[["1", {"n": 1}]])
    event = change_event(request, "created", "2", "c1")
    event["document"] = {"id": "2", "error": True}
    await connection.send(event)
    await client.wait_for("l", "documents", documents=[["1", {"n": 1}], ["2", {}]])
    connection.abort()
    await accept_reconnect(server, client)
