"""Promises that concern JavaScript alone, such as those about handlers that call the client."""

from __future__ import annotations

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import (
    accept_join,
    accept_reconnect,
    start_client,
    start_client_live,
    start_live,
    start_room,
    start_watching,
)
from tests.clients.scripted_server import ScriptedServer, change_event

BOB = {"id": "8", "name": "bob"}


async def ready_is_new_after_connecting_again(server: ScriptedServer, client: Driver) -> None:
    connection, _ = await start_live(server, client, ("1", {"n": 1}))
    await client.do("room", "r", name="chat")
    await accept_join(connection)
    await client.wait_for("r", "ready")
    await client.do("close")
    await client.wait_for("db", "status", status="closed")
    await client.do("connect")
    await client.wait_for("db", "status", status="connecting")
    for name in "lr":
        await client.do("ready", name)
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await client.expect_nothing("r")
    await connection.reply_subscribed(request, cursor="c1", scope="s")
    await connection.send_snapshot(request, ("1", {"n": 1}), cursor="c1")
    await client.wait_for("l", "ready")
    await accept_join(connection)
    await client.wait_for("r", "ready")


async def handler_of_events_that_fails_is_reported(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    for name, behavior in (("throw", "throw"), ("reject", "reject"), ("good", None)):
        await client.do("watch", name, collection="posts", behavior=behavior)
    connection = await server.accept_authenticated()
    requests = [await connection.receive("subscribe") for _ in range(3)]
    for request in requests:
        await connection.reply_subscribed(request, cursor="c0", scope="s")
    event = change_event(requests[0], "created", "1", "c1", n=1)
    names = [request["subscription"] for request in requests]
    await connection.send({**event, "subscriptions": names})
    for name in ("throw", "reject", "good"):
        await client.wait_for(name, "event", id="1")
    for _ in range(2):
        await client.wait_for("errors", "error", origin="listener")


async def unknown_option_of_a_watch_is_refused(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts", options={"filter": {"n": 1}})
    await client.wait_for("w", "failed")
    await client.do("live", "l", collection="posts", options={"limt": 5})
    await client.wait_for("l", "failed")
    connection = await server.accept_authenticated()
    await connection.receive_nothing()


async def requests_refused_by_the_client_do_not_block_others(
    server: ScriptedServer, client: Driver
) -> None:
    """More than the burst of the rate: a request that was not sent gets no reply."""
    connection = await start_client_live(server, client)
    for n in range(60):
        await client.do("request", f"q{n}", frame={"type": "x", "value": "$nan"})
        await client.wait_for(f"q{n}", "failed", code="bad_request")
    await client.do("request", "good", frame={"type": "y"})
    await connection.reply(await connection.receive("y"), "y")
    await client.wait_for("good", "reply")


async def subscription_made_when_the_user_changes_is_requested_once(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_client_live(server, client)
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
