"""Promise 2: a client is one person.

A client must do the following when ``authenticated`` has another user than before, after a
reconnection or as the answer to a renewal (where a client may also reconnect):

- Reject broadcasts and other calls that wait, with any code.
- Show no document or member from before: lists are empty until the new snapshot, members until the
  new list. Subscribe without ``since``, and join without ``since`` and without the old state.
- Report the status ``live`` with ``user``, which is a key of the event in JavaScript, and of
  ``detail`` in Python.

After 4500 and 4505, lists and members are empty and ``user`` is null.
"""

from __future__ import annotations

import asyncio
import time

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import (
    accept_join,
    accept_reconnect,
    send_marker,
    start_client,
    start_live,
    start_room,
    start_watching,
)
from tests.clients.scripted_server import ScriptedServer, broadcast_event, change_event

ADA, BOB = {"id": "7", "name": "ada"}, {"id": "8", "name": "bob"}


async def status_live_has_the_user(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    connection = await server.accept_authenticated()
    await client.expect("db", "status", status="live", user=ADA)
    connection.abort()
    await accept_reconnect(server, client)
    await client.do("user")
    await client.wait_for("db", "user", user=ADA)


async def waiting_broadcast_is_not_sent_as_another_user(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    await client.do("state", "r", state={"mood": "ada's"})
    await connection.reply(await connection.receive("state"), "state", room="chat")
    await client.do("broadcast", "r", message="unconfirmed", tag="unconfirmed")
    await connection.receive("broadcast")
    server.refusal = 503
    connection.abort()
    await client.wait_for("db", "status", status="waiting")
    await client.do("broadcast", "r", message="typed by ada", tag="typed")
    server.refusal = None
    connection = await server.accept_authenticated(user=BOB)
    await client.wait_for("db", "status", status="live", user=BOB)
    for tag in ("unconfirmed", "typed"):
        await client.wait_for("r", "failed", tag=tag)
    join = await accept_join(connection)
    assert not join.get("state")
    await client.do("broadcast", "r", message="typed by bob", tag="bob")
    request = await connection.receive("broadcast")
    assert request["message"] == "typed by bob"
    await connection.reply(request, "sent", room="chat")
    await client.wait_for("r", "sent", tag="bob")
    await connection.receive_nothing()


async def waiting_calls_survive_a_reconnect_as_the_same_user(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    await client.do("state", "r", state={"mood": 1})
    await connection.reply(await connection.receive("state"), "state", room="chat")
    await client.do("broadcast", "r", message="x", tag="x")
    first = await connection.receive("broadcast")
    connection.abort()
    connection = await accept_reconnect(server, client)
    assert (await accept_join(connection))["state"] == {"mood": 1}
    again = await connection.receive("broadcast")
    assert again["idempotency_key"] == first["idempotency_key"]
    await connection.reply(again, "sent", room="chat")
    await client.wait_for("r", "sent", tag="x")


async def list_of_another_user_is_emptied_and_loaded_again(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_live(server, client, ("1", {"n": "ada's"}))
    connection.abort()
    connection = await accept_reconnect(server, client, user=BOB)
    await client.expect("l", "documents", documents=[])
    request = await connection.receive("subscribe")
    assert "since" not in request
    await connection.reply_subscribed(request, cursor="d0", scope="t")
    await connection.send_snapshot(request, ("2", {"n": "bob's"}), cursor="d0")
    await client.expect("l", "documents", documents=[["2", {"n": "bob's"}]])


async def watch_of_another_user_does_not_resume(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_watching(server, client)
    await connection.send(change_event(request, "created", "1", "c1"))
    await client.wait_for("w", "event", id="1")
    connection.abort()
    connection = await accept_reconnect(server, client, user=BOB)
    request = await connection.receive("subscribe")
    assert "since" not in request
    await connection.reply_subscribed(request, cursor="c0", scope="t")
    # a cursor that was seen before is not a duplicate for this user
    await connection.send(change_event(request, "created", "2", "c1"))
    await client.wait_for("w", "event", id="2")


async def members_of_another_user_are_dropped(server: ScriptedServer, client: Driver) -> None:
    connection = await start_room(server, client, history=10)
    await connection.send(broadcast_event("chat", "for ada", cursor="m1"))
    await client.wait_for("r", "message", message="for ada")
    connection.abort()
    connection = await accept_reconnect(server, client, user=BOB)
    join = await connection.receive("join")
    assert "since" not in join
    await client.do("members", "r")
    await client.wait_for("r", "members", members=[], participants=0)
    members = [{**BOB, "state": {}}]
    await connection.reply(join, "joined", room="chat", participants=1, members=members)
    await send_marker(connection, client)
    await client.do("members", "r")
    await client.wait_for("r", "members", members=members, participants=1)


async def visitor_who_logs_in_is_another_user(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, tokens=None)
    await client.do("live", "l", collection="posts")
    connection = await server.accept_authenticated(user=None)
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {"n": 1}), cursor="c0")
    await client.wait_for("l", "documents", documents=[["1", {"n": 1}]])
    connection.abort()
    connection = await accept_reconnect(server, client, user=ADA)
    await client.wait_for("l", "documents", documents=[])
    assert "since" not in await connection.receive("subscribe")


async def renewal_as_another_user_drops_what_was_shown(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, tokens=["ada", "bob"], timeout=2000)
    await client.do("live", "l", collection="posts")
    await client.do("room", "r", name="chat")
    later = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 7200))
    connection = await server.accept_authenticated(expires_at=later)
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {"n": 1}), cursor="c0")
    await client.wait_for("l", "documents", documents=[["1", {"n": 1}]])
    await accept_join(connection)
    await client.wait_for("r", "ready")
    await client.do("broadcast", "r", message="x", tag="x")
    await connection.receive("broadcast")
    await client.do("sleep", seconds=7000)  # the token is renewed
    auth = await connection.receive("auth")
    assert auth["token"] == "bob"
    await server.authenticate(connection, auth, user=BOB)
    await client.wait_for("r", "failed", tag="x")
    await client.wait_for("l", "documents", documents=[])


async def waiting_state_is_not_sent_as_another_user(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, tokens=["ada", "bob"])
    await client.do("room", "r", name="chat")
    later = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 7200))
    connection = await server.accept_authenticated(expires_at=later)
    await accept_join(connection)
    await client.wait_for("r", "ready")
    await client.do("sleep", seconds=7000)  # the token is renewed
    auth = await connection.receive("auth")
    await client.do("state", "r", state={"typing": "ada"})
    state = await connection.receive("state")
    await connection.reply_error(state, "rate_limited", retry_after_ms=500)
    await asyncio.sleep(0.1)
    await server.authenticate(connection, auth, user=BOB)
    await client.wait_for("r", "failed", state={"typing": "ada"})
    while (frame := await connection.receive_within(1)) is not None:
        assert (frame["type"], frame.get("state")) == ("join", None), frame


async def nothing_is_shown_after_the_credential_was_revoked(
    server: ScriptedServer, client: Driver
) -> None:
    await check_nothing_is_shown_after(4500, server, client)


async def nothing_is_shown_after_access_was_forbidden(
    server: ScriptedServer, client: Driver
) -> None:
    await check_nothing_is_shown_after(4505, server, client)


async def check_nothing_is_shown_after(code: int, server: ScriptedServer, client: Driver) -> None:
    connection, _ = await start_live(server, client, ("1", {"n": 1}))
    await client.do("room", "r", name="chat")
    await accept_join(connection)
    await client.wait_for("r", "ready")
    await client.do("user")
    await client.wait_for("db", "user", user=ADA)
    await connection.close(code)
    await client.wait_for("db", "status", status="closed", code=code)
    await client.wait_for("l", "documents", documents=[])
    await client.do("members", "r")
    await client.wait_for("r", "members", members=[], participants=0)
    await client.do("user")
    await client.wait_for("db", "user", user=None)


async def nothing_is_shown_after_a_refused_reconnect(
    server: ScriptedServer, client: Driver
) -> None:
    """As after a logout in another tab: the session has no user any more."""
    connection, _ = await start_live(server, client, ("1", {"n": 1}))
    connection.abort()
    await client.wait_for("db", "status", status="waiting")
    connection = await server.accept()
    await connection.reply_error(await connection.receive("auth"), "authentication_failed")
    await connection.close(4500)
    await client.wait_for("db", "status", status="closed", code=4500)
    await client.wait_for("l", "documents", documents=[])
    await client.do("user")
    await client.wait_for("db", "user", user=None)
