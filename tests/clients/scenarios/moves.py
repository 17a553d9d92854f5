"""Promise 8: after its rights have changed, a list shows what the client may see, in one step.

A client must:

- Apply a move (``moved``) to lists, and report it as ``left`` and ``entered``, when it has the last
  part, and only then keep its cursor and scope.
- Drop the parts of a move that a new ``subscribed`` or a ``resync`` interrupts.
"""

from __future__ import annotations

from typing import Any

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import (
    FIRST,
    accept_reconnect,
    expect_shown,
    resubscribe,
    send_marker,
    start_list,
    start_watching,
)
from tests.clients.scripted_server import Connection, ScriptedServer, change_event


async def answer_scope_changed(connection: Connection, request: Any, *documents: Any) -> None:
    resync = {"resumed": False, "resync": {"reason": "scope_changed"}}
    await connection.reply_subscribed(request, cursor="c9", scope="t", **resync)
    await connection.send_snapshot(request, *documents, cursor="c9")


async def move_changes_a_list_in_one_step(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_list(server, client)
    await connection.send_moved(
        request, ("4", {"n": 4}), ("0", {"n": 0}), left=("2",), cursor="c1", scope="t"
    )
    await expect_shown(client, 1, 3, 4, 0)
    await client.expect_nothing("l")


async def move_is_reported_to_a_watch_as_events(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_watching(server, client, transitions=True)
    await connection.send_moved(
        request, ("4", {"n": 4}), ("5", {"n": 5}), left=("2", "3"), cursor="c1", scope="t"
    )
    await client.expect("w", "event", event="left", id="2")
    await client.expect("w", "event", event="left", id="3")
    # they have no cursor: the position is that of the whole move
    await client.expect("w", "event", event="entered", id="4", data={"n": 4}, cursor=None)
    await client.expect("w", "event", event="entered", id="5", data={"n": 5}, cursor=None)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c1", "t")


async def move_in_parts_is_shown_when_it_is_complete(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_list(server, client)
    await connection.send_moved(request, left=("1", "2"), cursor="c1")
    await connection.send_moved(request, ("4", {"n": 4}), left=("3",), cursor="c1")
    await client.expect_nothing("l")
    await connection.send_moved(request, ("5", {"n": 5}), cursor="c1", scope="t")
    await expect_shown(client, 4, 5)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c1", "t")


async def move_in_parts_is_reported_to_a_watch_when_it_is_complete(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_watching(server, client, transitions=True)
    await connection.send_moved(request, left=("1",), cursor="c1")
    await client.expect_nothing("w")
    await connection.send_moved(request, ("4", {"n": 4}), cursor="c1", scope="t")
    await client.expect("w", "event", event="left", id="1")
    await client.expect("w", "event", event="entered", id="4")


async def connection_lost_between_parts_continues_from_before_the_move(
    server: ScriptedServer, client: Driver
) -> None:
    """The rights are again what they were, so that the server lets the client resume."""
    connection, request = await start_list(server, client)
    await connection.send_moved(request, left=("1", "2"), cursor="c1")
    await send_marker(connection, client)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c0", "s")
    await connection.reply_subscribed(request, cursor="c0", scope="s", resumed=True)
    await connection.send(change_event(request, "entered", "4", "c2", n=4))
    await expect_shown(client, 1, 2, 3, 4)
    # the parts of before are not part of another move
    await connection.send_moved(request, ("5", {"n": 5}), cursor="c3", scope="t")
    await expect_shown(client, 1, 2, 3, 4, 5)


async def list_is_replaced_after_a_connection_lost_between_parts(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_list(server, client)
    await connection.send_moved(request, left=("1", "2"), cursor="c1")
    connection, request = await resubscribe(connection, server, client)
    await answer_scope_changed(connection, request, ("3", {"n": 3}), ("4", {"n": 4}))
    await expect_shown(client, 3, 4)


async def connection_lost_after_a_move_continues_from_it(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_list(server, client)
    await connection.send_moved(request, ("4", {"n": 4}), left=("1",), cursor="c1", scope="t")
    await expect_shown(client, 2, 3, 4)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c1", "t")
    await connection.reply_subscribed(request, cursor="c1", scope="t", resumed=True)
    event = change_event(request, "left", "4", "c2")
    await connection.send({**event, "replayed": True})
    await expect_shown(client, 2, 3)


async def move_while_the_client_was_away_is_answered_with_a_snapshot(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_list(server, client)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c0", "s")
    await answer_scope_changed(connection, request, ("2", {"n": 2}))
    await expect_shown(client, 2)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c9", "t")


async def events_before_and_after_a_move_are_applied_in_order(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_list(server, client)
    await connection.send(change_event(request, "entered", "4", "c1", n=4))
    await expect_shown(client, 1, 2, 3, 4)
    await connection.send_moved(request, ("5", {"n": 5}), left=("4",), cursor="c2", scope="t")
    await expect_shown(client, 1, 2, 3, 5)
    await connection.send(change_event(request, "deleted", "5", "c3", n=5))
    await expect_shown(client, 1, 2, 3)
    await connection.send(change_event(request, "entered", "4", "c4", n=4))
    await expect_shown(client, 1, 2, 3, 4)


async def move_without_documents_has_the_new_scope(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_list(server, client)
    await connection.send_moved(request, cursor="c1", scope="t")
    await client.expect_nothing("l")
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c1", "t")


async def move_of_an_unknown_subscription_is_ignored(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_list(server, client)
    unknown = {"subscription": "posts#99"}
    await connection.send_moved(unknown, ("4", {"n": 4}), left=("1",), cursor="c1", scope="t")
    await connection.send_resync(unknown, cursor="c1")
    await send_marker(connection, client)
    await client.expect_nothing("l")
    await client.expect_nothing("errors")
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c0", "s")


async def move_of_documents_without_data(server: ScriptedServer, client: Driver) -> None:
    """They are too large, or their serializer failed."""
    connection, request = await start_list(server, client)
    documents = [{"id": "4", "truncated": True}, {"id": "5", "error": True}]
    frame = {"type": "moved", "subscription": request["subscription"], "left": ["1", "2"]}
    position = {"cursor": "c1", "scope": "t", "more": False}
    await connection.send({**frame, "entered": documents, **position})
    await client.expect("l", "documents", documents=[["3", {"n": 3}], ["4", {}], ["5", {}]])


async def move_during_a_snapshot_is_applied_after_it(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_list(server, client)
    await connection.send_resync(request)
    await connection.send_snapshot(request, ("4", {"n": 4}), ("5", {"n": 5}), more=True)
    await connection.send_moved(request, ("7", {"n": 7}), left=("4",), cursor="c2")
    await connection.send_moved(request, left=("6",), cursor="c2", scope="u")
    await client.expect_nothing("l")
    await connection.send_snapshot(request, ("6", {"n": 6}), cursor="c1")
    await expect_shown(client, 5, 7)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c2", "u")


async def resync_drops_an_incomplete_move(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_list(server, client)
    await connection.send_moved(request, ("4", {"n": 4}), left=("1", "2"), cursor="c1")
    await connection.send_resync(request)
    await connection.send_snapshot(request, *FIRST[1:], cursor="c2")
    await expect_shown(client, 2, 3)
    await connection.send_moved(request, ("5", {"n": 5}), cursor="c3", scope="u")
    await expect_shown(client, 2, 3, 5)


async def update_drops_an_incomplete_move(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_list(server, client)
    await connection.send_moved(request, left=("1",), cursor="c1")
    await client.do("update", "l", options={"filters": {"n__gt": 1}})
    update = await connection.receive("subscribe")
    # sent before the server received the new request
    await connection.send_moved(request, left=("3",), cursor="c1")
    await connection.reply_subscribed(update, cursor="c1", scope="t")
    await connection.send_snapshot(update, ("2", {"n": 2}), ("3", {"n": 3}), cursor="c1")
    await expect_shown(client, 2, 3)
    await client.expect("l", "ready")
    await connection.send_moved(update, ("4", {"n": 4}), cursor="c2", scope="u")
    await expect_shown(client, 2, 3, 4)


async def refused_update_keeps_an_incomplete_move(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_list(server, client)
    await connection.send_moved(request, left=("1",), cursor="c1")
    await client.do("update", "l", options={"filters": {"nope": 1}})
    await connection.reply_error(await connection.receive("subscribe"), "invalid_filter")
    await client.wait_for("l", "failed", code="invalid_filter")
    await connection.send_moved(request, ("4", {"n": 4}), cursor="c1", scope="t")
    await client.wait_for("l", "documents", documents=[[str(n), {"n": n}] for n in (2, 3, 4)])


async def stopped_list_ignores_the_rest_of_a_move(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_list(server, client)
    await connection.send_moved(request, left=("1",), cursor="c1")
    await client.do("stop", "l")
    await connection.receive("unsubscribe")
    await connection.send_moved(request, ("4", {"n": 4}), cursor="c1", scope="t")
    await connection.send_resync(request)
    await client.expect_nothing("l")
    connection.abort()
    connection = await accept_reconnect(server, client)
    await connection.receive_nothing()
