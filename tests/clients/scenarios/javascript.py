"""Promises that concern JavaScript alone."""

from __future__ import annotations

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import accept_join, start_client, start_live
from tests.clients.scripted_server import ScriptedServer, change_event


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
