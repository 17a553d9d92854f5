"""Promise 1: every call settles, and what was refused is not sent again.

A client must:

- Refuse values that the server could not read, or that are larger than ``limits`` of
  ``authenticated`` allow, before it sends them: half a surrogate, NUL, NaN, integers beyond 2^53.
  JavaScript rejects the promise or throws ``RealtimeError``; Python raises ``RealtimeError``,
  ``TypeError`` or ``ValueError``.
- Keep the last state that was not refused, and join with it after a loss.
- Reject broadcasts that had no connection for four minutes, by a timer of that length.
- Settle all calls and all ``ready`` after ``close``, ``stop`` and ``leave``.
"""

from __future__ import annotations

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import (
    accept_join,
    accept_reconnect,
    send_marker,
    start_client,
    start_client_live,
    start_room,
    start_watching,
)
from tests.clients.scripted_server import LIMITS, ScriptedServer

UNREADABLE = ("$surrogate", "$nul", "$nan", "$big")


async def unreadable_broadcast_is_refused_without_being_sent(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    for value in UNREADABLE:
        await client.do("broadcast", "r", message={"text": [value]}, tag=value[1:])
        await client.wait_for("r", "failed", tag=value[1:])
    await connection.receive_nothing()
    connection.abort()
    connection = await accept_reconnect(server, client)
    await accept_join(connection)
    await client.do("broadcast", "r", message="good", tag="good")
    request = await connection.receive("broadcast")
    assert request["message"] == "good"
    await connection.reply(request, "sent", room="chat")
    await client.wait_for("r", "sent", tag="good")


async def unreadable_broadcast_is_refused_without_a_connection(
    server: ScriptedServer, client: Driver
) -> None:
    server.refusal = 503
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    for value in UNREADABLE:
        await client.do("broadcast", "r", message=value, tag=value[1:])
        await client.wait_for("r", "failed", tag=value[1:])


async def oversized_broadcast_is_refused_without_being_sent(
    server: ScriptedServer, client: Driver
) -> None:
    """``message_bytes`` counts bytes of the frame in UTF-8, not characters."""
    connection = await start_room(server, client)
    for value in ("$long", "$wide"):
        await client.do("broadcast", "r", message=value, tag=value[1:])
        await client.wait_for("r", "failed", tag=value[1:])
    await connection.receive_nothing()


async def oversized_broadcast_queued_offline_is_refused(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    await client.do("broadcast", "r", message="x" * 600, tag="large")
    await client.do("broadcast", "r", message="good", tag="good")
    connection = await server.accept_authenticated(limits={**LIMITS, "message_bytes": 500})
    await accept_join(connection)
    await client.wait_for("r", "failed", tag="large")
    request = await connection.receive("broadcast")
    assert request["message"] == "good"
    await connection.reply(request, "sent", room="chat")
    await client.wait_for("r", "sent", tag="good")


async def unreadable_filter_is_refused_without_being_sent(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    for value in UNREADABLE:
        options = {"filters": {"title": value}}
        await client.do("watch", value, collection="posts", options=options)
        await client.wait_for(value, "failed")
    await client.do("watch", "w", collection="posts")
    connection = await server.accept_authenticated()
    await connection.receive("subscribe")
    await connection.receive_nothing()
    connection.abort()
    connection = await accept_reconnect(server, client)
    await connection.receive("subscribe")
    await connection.receive_nothing()


async def unreadable_update_keeps_the_subscription(server: ScriptedServer, client: Driver) -> None:
    connection, first = await start_watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"n": "$big"}})
    await client.wait_for("w", "failed")
    await connection.receive_nothing()
    connection.abort()
    connection = await accept_reconnect(server, client)
    again = await connection.receive("subscribe")
    assert (again["filters"], again["since"]) == (first["filters"], "c0")


async def oversized_update_is_refused_without_being_sent(
    server: ScriptedServer, client: Driver
) -> None:
    """The options alone are not too large, but the request is."""
    connection, _ = await start_watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"n": "x" * 65500}})
    await client.wait_for("w", "failed", code="too_large")
    await connection.receive_nothing()


async def refused_state_is_not_part_of_the_next_join(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    await client.do("state", "r", state={"mood": 1})
    await connection.reply(await connection.receive("state"), "state", room="chat")
    await client.wait_for("r", "state", state={"mood": 1})
    await client.do("state", "r", state={"mood": 2})
    await connection.reply_error(await connection.receive("state"), "too_large")
    await client.wait_for("r", "failed", state={"mood": 2})
    await client.do("state", "r", state={"mood": "x" * 2000})  # over `state_bytes`
    await client.wait_for("r", "failed")
    await connection.receive_nothing()
    connection.abort()
    connection = await accept_reconnect(server, client)
    join = await accept_join(connection)
    assert join["state"] == {"mood": 1}


async def refused_first_state_leaves_the_room_without_one(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    for value in ("x" * 2000, "$surrogate"):
        await client.do("state", "r", state={"mood": value})
        await client.wait_for("r", "failed")
    connection.abort()
    connection = await accept_reconnect(server, client)
    assert not (await accept_join(connection)).get("state")


async def state_set_before_the_room_is_joined_settles(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    await client.do("state", "r", state={"mood": 1})
    connection = await server.accept_authenticated()
    join = await accept_join(connection)
    await client.wait_for("r", "ready")
    if "state" not in join:
        request = await connection.receive("state")
        assert request["state"] == {"mood": 1}
        await connection.reply(request, "state", room="chat")
    await client.do("members", "r")
    await client.wait_for("r", "members", state={"mood": 1})


async def newer_state_survives_a_join_that_was_refused_for_an_older_one(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat", options={"state": {"mood": 1}})
    connection = await server.accept_authenticated()
    join = await connection.receive("join")
    await client.do("state", "r", state={"mood": 2})
    await connection.reply_error(join, "bad_request")
    join = await accept_join(connection)
    assert join["state"] == {"mood": 2}
    await client.wait_for("r", "ready")
    await client.do("members", "r")
    await client.wait_for("r", "members", state={"mood": 2})


async def state_unanswered_at_a_loss_settles_after_the_next_join(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    await client.do("state", "r", state={"mood": 1})
    await connection.receive("state")
    connection.abort()
    connection = await accept_reconnect(server, client)
    join = await accept_join(connection)
    assert join["state"] == {"mood": 1}
    await client.wait_for("r", "state", state={"mood": 1})


async def broadcast_is_rejected_after_four_minutes_without_a_connection(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    server.refusal = 503
    connection.abort()
    await client.wait_for("db", "status", status="waiting")
    await client.do("broadcast", "r", message="x", tag="x")
    await client.do("advance", seconds=200)
    await client.do("broadcast", "r", message="later", tag="later")
    await client.expect_nothing("r", 1)  # after two ticks, it still waits
    await client.do("advance", seconds=60)
    await client.wait_for("r", "failed", tag="x", code="closed")
    server.refusal = None
    connection = await server.accept_authenticated()
    await accept_join(connection)
    request = await connection.receive("broadcast")
    assert request["message"] == "later"
    await connection.reply(request, "sent", room="chat")
    await client.wait_for("r", "sent", tag="later")


async def refused_broadcast_is_not_sent_again(server: ScriptedServer, client: Driver) -> None:
    connection = await start_room(server, client)
    await client.do("broadcast", "r", message="x", tag="x")
    await connection.reply_error(await connection.receive("broadcast"), "forbidden")
    await client.wait_for("r", "failed", tag="x", code="forbidden")
    connection.abort()
    connection = await accept_reconnect(server, client)
    await accept_join(connection)
    await connection.receive_nothing()


async def refused_room_is_not_joined_again(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    await client.do("broadcast", "r", message="x", tag="x")
    connection = await server.accept_authenticated()
    await connection.reply_error(await connection.receive("join"), "forbidden")
    await client.wait_for("r", "failed", code="forbidden", tag="x")
    connection.abort()
    connection = await accept_reconnect(server, client)
    await connection.receive_nothing()


async def bad_request_with_an_id_settles_the_call(server: ScriptedServer, client: Driver) -> None:
    connection = await start_room(server, client)
    await client.do("broadcast", "r", message="x", tag="x")
    await connection.reply_error(await connection.receive("broadcast"), "bad_request")
    await client.wait_for("r", "failed", tag="x", code="bad_request")


async def all_calls_settle_when_the_client_is_closed(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    await client.do("broadcast", "r", message="x", tag="x")
    await connection.receive("broadcast")
    await client.do("state", "r", state={"mood": 1})
    await client.do("watch", "w", collection="posts")
    await client.do("live", "l", collection="posts")
    await client.do("watch", "u", collection="posts")
    await client.do("room", "s", name="other")
    await connection.receive("state")
    requests = [await connection.receive("subscribe") for _ in "wlu"]
    await connection.reply_subscribed(requests[2], cursor="c0")
    await client.wait_for("u", "ready")
    await client.do("update", "u", options={"filters": {"n": 1}})
    await send_marker(connection, client)
    await client.do("close")
    await client.wait_for("db", "status", status="closed")
    await client.wait_for("r", "failed", tag="x", code="closed")
    await client.wait_for("r", "failed", state={"mood": 1})
    for name in ("w", "l", "u", "s"):
        await client.wait_for(name, "failed", code="closed")


async def ready_settles_when_a_subscription_is_stopped(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    for name, op in (("w", "watch"), ("l", "live")):
        await client.do(op, name, collection="posts")  # before there is a connection
    connection = await server.accept_authenticated()
    for _ in "wl":
        await connection.receive("subscribe")
    for name, op in (("v", "watch"), ("k", "live")):
        await client.do(op, name, collection="posts")
        await connection.receive("subscribe")
    for name in "wlvk":
        await client.do("stop", name)
        await client.wait_for(name, "failed", code="closed")


async def update_of_a_stopped_subscription_settles(server: ScriptedServer, client: Driver) -> None:
    connection, _ = await start_watching(server, client)
    await client.do("update", "w", options={"filters": {"n": 1}})
    await connection.receive("subscribe")
    await client.do("stop", "w")
    await client.wait_for("w", "failed", code="closed")
    await client.do("update", "w", options={"filters": {"n": 2}})
    await client.wait_for("w", "failed", code="closed")


async def ready_settles_when_a_room_is_left(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.accept_authenticated()
    await connection.receive("join")
    await client.do("broadcast", "r", message="x", tag="x")
    await client.do("leave", "r")
    await client.wait_for("r", "failed", code="closed")
    await client.wait_for("r", "failed", code="closed")
    await client.do("broadcast", "r", message="y", tag="y")
    await client.wait_for("r", "failed", code="closed", tag="y")
    await client.do("state", "r", state={})
    await client.wait_for("r", "failed", code="closed")


async def server_that_sends_no_limits_is_used_as_before(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client, limits=None)
    await client.do("broadcast", "r", message="x", tag="x")
    request = await connection.receive("broadcast")
    await connection.reply(request, "sent", room="chat")
    await client.wait_for("r", "sent", tag="x")
    await client.do("broadcast", "r", message="$surrogate", tag="y")
    await client.wait_for("r", "failed", tag="y")


async def subscription_stopped_in_its_error_handler_settles(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_client_live(server, client)
    stop = {"op": "stop", "id": "w"}
    await client.do("live", "w", collection="posts", on_error=[stop, {"op": "ready", "id": "w"}])
    await connection.reply_error(await connection.receive("subscribe"), "internal_error")
    for _ in range(2):  # `ready` of before, and of now
        await client.wait_for("w", "failed")


async def update_in_the_handler_of_a_refused_update_has_its_own_result(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_client_live(server, client)
    second = {"op": "update", "id": "w", "options": {"filters": {"b": 2}}}
    await client.do("live", "w", collection="posts", on_error=[second])
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request)
    await connection.send_snapshot(request)
    await client.wait_for("w", "ready")
    await client.do("update", "w", options={"filters": {"a": 1}})
    await connection.reply_error(await connection.receive("subscribe"), "invalid_filter")
    request = await connection.receive("subscribe")
    assert request["filters"] == {"b": 2}
    await client.wait_for("w", "failed", code="invalid_filter")
    await connection.reply_subscribed(request)
    await connection.send_snapshot(request)
    await client.wait_for("w", "ready")


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


async def older_state_settles_before_the_newer_one_is_answered(
    server: ScriptedServer, client: Driver
) -> None:
    connection = await start_room(server, client)
    await client.do("state", "r", state={"n": 1})
    first = await connection.receive("state")
    for n in (2, 3):
        await client.do("state", "r", state={"n": n})
    await connection.receive_nothing()
    await connection.reply(first, "state", room="chat")
    await client.expect("r", "state", state={"n": 1})
    request = await connection.receive("state")
    assert request["state"] == {"n": 3}
    await client.expect_nothing("r")
    await connection.reply_error(request, "internal_error")
    for n in (2, 3):  # one request for both
        await client.expect("r", "failed", state={"n": n}, code="internal_error")
    await client.do("members", "r")
    await client.wait_for("r", "members", state={"n": 1})
