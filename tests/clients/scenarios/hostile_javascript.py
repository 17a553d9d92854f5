"""Situations that are hard on the JavaScript client: calls within handlers, clocks, no answers."""

from __future__ import annotations

from typing import Any

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import (
    accept_join,
    accept_reconnect,
    start_client,
    start_live,
    start_room,
    start_watching,
)
from tests.clients.scripted_server import Connection, ScriptedServer, change_event

BOB = {"id": "8", "name": "bob"}


async def start_live_client(server: ScriptedServer, client: Driver, **options: Any) -> Connection:
    await start_client(server, client, **options)
    connection = await server.accept_authenticated()
    await client.wait_for("db", "status", status="live")
    return connection


async def requests_refused_by_the_client_do_not_block_others(
    server: ScriptedServer, client: Driver
) -> None:
    """More than the burst of the rate: a request that was not sent gets no reply."""
    connection = await start_live_client(server, client)
    for n in range(60):
        await client.do("request", f"q{n}", frame={"type": "x", "value": "$nan"})
        await client.wait_for(f"q{n}", "failed", code="bad_request")
    await client.do("request", "good", frame={"type": "y"})
    await connection.reply(await connection.receive("y"), "y")
    await client.wait_for("good", "reply")


async def subscription_stopped_in_its_error_handler_settles(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_live_client(server, client)
    stop = {"op": "stop", "id": "w"}
    await client.do("watch", "w", collection="posts", on_error=[stop, {"op": "ready", "id": "w"}])
    await connection.reply_error(await connection.receive("subscribe"), "internal_error")
    for _ in range(2):  # `ready` of before, and of now
        await client.wait_for("w", "failed")


async def update_in_the_handler_of_a_refused_update_has_its_own_result(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_live_client(server, client)
    second = {"op": "update", "id": "w", "options": {"filters": {"b": 2}}}
    await client.do("watch", "w", collection="posts", on_error=[second])
    await connection.reply_subscribed(await connection.receive("subscribe"))
    await client.wait_for("w", "ready")
    await client.do("update", "w", options={"filters": {"a": 1}})
    await connection.reply_error(await connection.receive("subscribe"), "invalid_filter")
    request = await connection.receive("subscribe")
    assert request["filters"] == {"b": 2}
    await client.wait_for("w", "failed", code="invalid_filter")
    await connection.reply_subscribed(request)
    await client.wait_for("w", "ready")


async def subscription_made_when_the_user_changes_is_requested_once(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_live_client(server, client)
    watch = {"op": "watch", "id": "new", "collection": "new"}
    commands = [watch, {"op": "stop", "id": "b"}, {"op": "ready", "id": "b"}]
    await client.do("watch", "a", collection="a", on_resync=commands)
    await client.do("watch", "b", collection="b")
    for _ in "ab":
        await connection.reply_subscribed(await connection.receive("subscribe"))
    await client.wait_for("b", "ready")
    connection.abort()
    connection = await accept_reconnect(server, client, user=BOB)
    names = {(await connection.receive("subscribe"))["collection"] for _ in range(2)}
    assert names == {"a", "new"}
    await connection.receive_nothing()
    await client.wait_for_any("b", "ready", "failed")


async def room_with_a_bad_state_that_was_left_does_not_remove_its_successor(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_live_client(server, client)
    bad = {"op": "room", "id": "r", "name": "chat", "options": {"state": {"n": "$nan"}}}
    good = {"op": "room", "id": "s", "name": "chat"}
    await client.do("batch", commands=[bad, {"op": "leave", "id": "r"}, good])
    await accept_join(connection)
    await client.wait_for("s", "ready")
    await client.do("broadcast", "s", message=1, tag="x")
    await connection.reply(await connection.receive("broadcast"), "sent")
    await client.wait_for("s", "sent", tag="x")


async def ignored_rejections_do_not_end_the_process(server: ScriptedServer, client: Driver) -> None:
    connection = await start_room(server, client)
    await client.do("ignore", "r", calls=[["broadcast", 1], ["setState", {"n": 1}]])
    await connection.receive("broadcast")
    await connection.receive("state")
    await client.do("watch", "w", collection="posts")
    await connection.reply_subscribed(await connection.receive("subscribe"))
    await client.wait_for("w", "ready")
    await client.do("ignore", "w", calls=[["update", {"filters": {"n": 1}}]])
    await connection.receive("subscribe")
    await client.do("close")
    await client.wait_for("db", "status", status="closed")
    await client.do("ignore", "r", calls=[["broadcast", 2], ["setState", {"n": 2}]])
    await client.do("user")
    await client.wait_for("db", "user")


async def update_rejected_by_close_is_not_sent_later(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"n": 2}})
    await connection.receive("subscribe")
    await client.do("close")
    await client.wait_for("w", "failed", code="closed")
    await client.do("connect")
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    assert (request["filters"], request["since"]) == ({"n": 1}, "c0")


async def refused_fields_do_not_change_what_a_list_shows(
    server: ScriptedServer, client: Driver
) -> None:
    first = ("1", {"title": "a", "n": 1})
    connection, request = await start_live(server, client, first, order="n", fields=["title"])
    await client.do("update", "l", options={"fields": ["title", "n", "secret"]})
    await connection.reply_error(await connection.receive("subscribe"), "bad_request")
    await client.wait_for("l", "failed", code="bad_request")
    await connection.send(change_event(request, "updated", "1", "c1", title="b", n=1))
    await client.wait_for("l", "documents", documents=[["1", {"title": "b"}]])


async def newer_state_survives_the_refusal_of_an_older_one(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    await client.do("state", "r", state={"n": 1})
    first = await connection.receive("state")
    await client.do("state", "r", state={"n": 2})
    await connection.receive_nothing()
    await connection.reply_error(first, "internal_error")
    await client.wait_for("r", "failed", state={"n": 1}, code="internal_error")
    request = await connection.receive("state")
    assert request["state"] == {"n": 2}
    await connection.reply(request, "state", room="chat")
    await client.wait_for("r", "state", state={"n": 2})
    await client.do("members", "r")
    await client.wait_for("r", "members", state={"n": 2})


async def clock_set_back_while_waiting_does_not_delay_the_connection(
    server: ScriptedServer, client: Driver
) -> None:
    """As when a computer with a wrong clock goes online, and sets it."""
    server.refusal = 503
    await start_client(server, client)
    await client.wait_for("db", "status", status="waiting")
    server.refusal = None
    await client.do("sleep", seconds=-3600)
    await client.do("wake", event="online")
    await server.accept_authenticated()
    await client.wait_for("db", "status", status="live")


async def clock_set_back_while_connecting_does_not_extend_the_timeout(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, timeout=1500)
    connection = await server.accept()
    await connection.receive("auth")
    await client.do("sleep", seconds=-3600)
    await client.wait_for("db", "status", status="waiting")
    await server.accept_authenticated()


async def server_that_accepts_but_does_not_answer_is_reported(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, timeout=1500)
    await server.accept()
    await client.wait_for("errors", "error", code="not_connected", origin="connection")


async def refused_auth_without_a_close_ends_in_a_new_attempt(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, timeout=1500)
    connection = await server.accept()
    await connection.reply_error(await connection.receive("auth"), "authentication_failed")
    await client.wait_for("db", "status", status="waiting")
    await server.accept_authenticated()
