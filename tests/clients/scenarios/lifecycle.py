"""Promises 6 and 7: a client's own life is clean, and it costs what is needed.

A client must:

- Count the users of a room: ``room(name)`` twice and ``leave`` once keeps it.
- Use a given ``since`` for the first request alone.
- Request a subscription once that was made while the status became ``live``.
- Deliver history to a program that reads after ``ready``.
- Refuse calls on a client that was closed.
- Wait out servers that refuse or drop connections, and 4504.
"""

from __future__ import annotations

import asyncio

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import (
    accept_join,
    accept_reconnect,
    start_client,
    start_client_live,
    start_room,
    start_watching,
)
from tests.clients.scripted_server import ScriptedServer, broadcast_event


async def room_with_two_users_is_left_by_the_last_one(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    await client.do("room", "s", name="chat")
    await client.wait_for("s", "ready")
    await client.do("leave", "r")
    await connection.receive_nothing()
    await connection.send(broadcast_event("chat", "hi"))
    await client.wait_for("s", "message", message="hi")
    await client.do("broadcast", "s", message="x", tag="x")
    await connection.reply(await connection.receive("broadcast"), "sent", room="chat")
    await client.wait_for("s", "sent", tag="x")
    connection.abort()
    connection = await accept_reconnect(server, client)
    await accept_join(connection)
    await client.do("leave", "s")
    assert (await connection.receive("leave"))["room"] == "chat"
    await client.do("room", "t", name="chat")
    await accept_join(connection)
    await client.wait_for("t", "ready")


async def history_is_delivered_to_a_reader_that_waited_for_ready(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat", options={"history": 20}, late=True)
    connection = await server.accept_authenticated()
    join = await connection.receive("join")
    joined = {"type": "joined", "id": join["id"], "room": "chat", "participants": 0, "members": []}
    history = [broadcast_event("chat", n, replayed=True, cursor=f"m{n}") for n in range(20)]
    await connection.send({**joined, "cursor": "m19"}, *history)
    for n in range(20):
        await client.wait_for("r", "message", message=n, replayed=True)


async def subscription_made_when_the_client_is_live_is_requested_once(
    server: ScriptedServer, client: Driver
) -> None:
    commands = [
        {"op": "watch", "id": "w", "collection": "posts"},
        {"op": "live", "id": "l", "collection": "posts"},
        {"op": "room", "id": "r", "name": "chat"},
    ]
    await start_client(server, client, on_live=commands)
    connection = await server.accept_authenticated()
    requests = [await connection.receive_any() for _ in commands]
    assert sorted(request["type"] for request in requests) == ["join", "subscribe", "subscribe"]
    await connection.receive_nothing()


async def given_position_is_used_once(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    options = {"since": "c5", "scope": "s", "snapshot": True}
    await client.do("watch", "w", collection="posts", options=options)
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    assert (request["since"], request["scope"]) == ("c5", "s")
    resync = {"resumed": False, "resync": {"reason": "retention"}}
    await connection.reply_subscribed(request, cursor="c9", scope="s", **resync)
    await client.expect("w", "resync", reason="retention")
    connection.abort()  # before the snapshot is complete
    connection = await accept_reconnect(server, client)
    request = await connection.receive("subscribe")
    assert "since" not in request
    await connection.reply_subscribed(request, cursor="c9", scope="s")
    await connection.send_snapshot(request, ("1", {}), cursor="c9")
    await client.expect("w", "snapshot", ids=["1"])


async def given_position_is_not_used_by_an_update(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_watching(server, client, since="c5", scope="s")
    assert request["since"] == "c5"
    await client.do("update", "w", options={"filters": {"n": 1}})
    request = await connection.receive("subscribe")
    assert "since" not in request
    assert "scope" not in request


async def given_position_is_kept_until_the_first_answer(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    options = {"since": "c5", "scope": "s"}
    await client.do("watch", "w", collection="posts", options=options)
    connection = await server.accept_authenticated()
    await connection.receive("subscribe")
    connection.abort()
    connection = await accept_reconnect(server, client)
    request = await connection.receive("subscribe")
    assert (request["since"], request["scope"]) == ("c5", "s")


async def closed_client_refuses_calls(server: ScriptedServer, client: Driver) -> None:
    connection = await start_room(server, client)
    await client.do("close")
    await client.wait_for("db", "status", status="closed")
    await asyncio.wait_for(connection.closed.wait(), 10)
    await client.do("broadcast", "r", message="x", tag="x")
    await client.wait_for("r", "failed", tag="x", code="closed")
    await client.do("watch", "w", collection="posts")
    await client.wait_for("w", "failed", code="closed")
    await client.do("live", "l", collection="posts")
    await client.wait_for("l", "failed", code="closed")
    await client.do("room", "s", name="other")
    await client.wait_for("s", "failed", code="closed")
    await asyncio.sleep(0.3)
    assert server.count == 1


async def client_closed_while_it_connects_stays_closed(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, tokens=["$hang"])
    await client.do("close")
    await client.wait_for("db", "status", status="closed")
    await client.expect_nothing("db", 1)
    assert server.count == 0


async def server_that_refuses_handshakes_for_a_while_is_waited_out(
    server: ScriptedServer, client: Driver
) -> None:
    client.may_log = True
    connection, _ = await start_watching(server, client)
    server.refusal = 503
    connection.abort()
    for _ in range(2):
        await client.wait_for("db", "status", status="waiting")
    server.refusal = None
    connection = await server.accept_authenticated()
    assert (await connection.receive("subscribe"))["since"] == "c0"


async def server_that_is_not_there_is_waited_for(server: ScriptedServer, client: Driver) -> None:
    client.may_log = True
    await client.do("create", url="ws://127.0.0.1:9/realtime", tokens="key")
    for _ in range(2):
        await client.wait_for("db", "status", status="waiting")


async def connection_limit_is_waited_out_each_time(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts")
    for delay in (100, 200, 300):
        connection = await server.accept()
        await connection.receive("auth")
        await connection.close(4504, delay)
        report = await client.wait_for("db", "status", status="waiting")
        assert report["delay"] >= delay / 1000
    connection = await server.accept_authenticated()
    await connection.reply_subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.wait_for("w", "ready")


async def room_with_a_bad_state_that_was_left_does_not_remove_its_successor(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_client_live(server, client)
    bad = {"op": "room", "id": "r", "name": "chat", "options": {"state": {"n": "$nan"}}}
    good = {"op": "room", "id": "s", "name": "chat"}
    await client.do("batch", commands=[bad, {"op": "leave", "id": "r"}, good])
    await accept_join(connection)
    await client.wait_for("s", "ready")
    await client.do("broadcast", "s", message=1, tag="x")
    await connection.reply(await connection.receive("broadcast"), "sent")
    await client.wait_for("s", "sent", tag="x")
