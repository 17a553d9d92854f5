"""Promise 9: a list that is loaded again while it is subscribed does not flicker.

A client must:

- After a ``resync``, keep the documents of a list until the last page of the new snapshot.
- Without a snapshot, report the reason, and continue from the cursor in the frame.
"""

from __future__ import annotations

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import (
    FIRST,
    expect_shown,
    resubscribe,
    send_marker,
    start_client,
    start_list,
    start_watching,
)
from tests.clients.scripted_server import ScriptedServer, change_event


async def resync_keeps_the_list_until_the_snapshot_is_complete(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_list(server, client)
    await connection.send_resync(request)
    await connection.send_snapshot(request, ("2", {"n": 2}), more=True)
    await client.expect_nothing("l")
    await connection.send_snapshot(request, ("4", {"n": 4}), cursor="c1")
    await expect_shown(client, 2, 4)
    await connection.send(change_event(request, "entered", "5", "c3", n=5))
    await expect_shown(client, 2, 4, 5)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c3", "t")


async def resync_to_the_same_documents_shows_nothing_new(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_list(server, client)
    await connection.send_resync(request)
    await connection.send_snapshot(request, *FIRST, cursor="c1")
    await client.expect_nothing("l")
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c1", "t")


async def connection_lost_during_the_snapshot_of_a_resync(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_list(server, client)
    await connection.send_resync(request, cursor="c1")
    await connection.send_snapshot(request, ("2", {"n": 2}), more=True)
    await send_marker(connection, client)
    connection, request = await resubscribe(connection, server, client)
    assert "since" not in request
    await client.expect_nothing("l")  # the old documents stay
    await connection.reply_subscribed(request, cursor="c2", scope="t")
    await connection.send_snapshot(request, ("4", {"n": 4}), cursor="c2")
    await expect_shown(client, 4)


async def second_resync_replaces_the_snapshot_of_the_first(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_list(server, client)
    await connection.send_resync(request)
    await connection.send_snapshot(request, ("4", {"n": 4}), more=True)
    await connection.send_resync(request, scope="u")
    await connection.send_snapshot(request, ("5", {"n": 5}), more=True)
    await client.expect_nothing("l")
    await connection.send_snapshot(request, ("6", {"n": 6}), cursor="c2")
    await expect_shown(client, 5, 6)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c2", "u")


async def resync_during_an_update_is_replaced_by_it(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_list(server, client)
    await client.do("update", "l", options={"filters": {"n__gt": 1}})
    update = await connection.receive("subscribe")
    await connection.send_resync(request)
    await connection.send_snapshot(request, ("1", {"n": 1}), more=True)
    await connection.reply_subscribed(update, cursor="c1", scope="u")
    await connection.send_snapshot(update, ("4", {"n": 4}), cursor="c1")
    await expect_shown(client, 4)
    await client.expect("l", "ready")


async def resync_without_a_snapshot_is_reported(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_watching(server, client)
    await connection.send(change_event(request, "created", "1", "c1"))
    await client.expect("w", "event", id="1", cursor="c1")
    await connection.send_resync(request, cursor="c2")
    await client.expect("w", "resync", reason="scope_changed")
    await connection.send_resync(request, reason="limit_exceeded", cursor="c3", scope="u")
    await client.expect("w", "resync", reason="limit_exceeded")
    await connection.send(change_event(request, "created", "2", "c4"))
    await client.expect("w", "event", id="2", cursor="c4")
    await connection.send_resync(request, cursor="c5", scope="v")
    await client.expect("w", "resync", reason="scope_changed")
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c5", "v")


async def resync_with_a_snapshot_is_reported_before_it(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts", options={"snapshot": True})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {}), cursor="c0")
    await client.wait_for("w", "snapshot", ids=["1"])
    await connection.send_resync(request)
    await connection.send_snapshot(request, ("2", {}), more=True)
    await connection.send_snapshot(request, ("3", {}), cursor="c1")
    await client.wait_for("w", "resync", reason="scope_changed")
    await client.expect("w", "snapshot", ids=["2", "3"])
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c1", "t")


async def resync_of_a_collection_without_a_log(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, scope="s")
    await client.expect("w", "ready")
    await connection.send_resync(request)
    await client.expect("w", "resync", reason="scope_changed")
    await connection.send(change_event(request, "created", "2"))
    await client.expect("w", "event", id="2")
    connection, request = await resubscribe(connection, server, client)
    assert "since" not in request


async def list_whose_permission_has_too_many_keys_is_emptied(
    server: ScriptedServer, client: Driver
) -> None:
    """The server evaluates the permission again, and refuses it."""
    connection, request = await start_list(server, client)
    await connection.send_resync(request, reason="limit_exceeded")
    await client.expect_nothing("l")
    error = {"type": "error", "code": "limit_exceeded", "message": "No."}
    await connection.send({**error, "subscription": request["subscription"]})
    await client.wait_for("errors", "error", code="limit_exceeded")
    await client.wait_for("l", "documents", documents=[])
