"""Subscriptions: resuming, snapshots, replacements, refusals."""

from __future__ import annotations

import asyncio

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import accept_reconnect, start_client, start_watching
from tests.clients.scripted_server import ScriptedServer, broadcast_event, change_event


async def events_are_reported_with_their_data(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    filters = {"status": "published"}
    await client.do("watch", "w", collection="posts", options={"filters": filters})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    assert (request["collection"], request["filters"]) == ("posts", filters)
    assert "since" not in request
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await client.expect("w", "ready")
    await connection.send(change_event(request, "created", "1", "c1", title="Hello"))
    await client.expect(
        "w", "event", event="created", id="1", data={"title": "Hello"}, cursor="c1", replayed=False
    )


async def subscription_resumes_without_loss_or_duplicate(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts", options={"fields": ["title"]})
    connection = await server.accept_authenticated()
    first = await connection.receive("subscribe")
    await connection.reply_subscribed(first, cursor="c0", scope="s")
    await connection.send(change_event(first, "created", "1", "c1", n=1))
    await client.wait_for("w", "event", id="1")
    connection.abort()
    connection = await accept_reconnect(server, client)
    second = await connection.receive("subscribe")
    assert (second["since"], second["scope"]) == ("c1", "s")
    for key in ("subscription", "collection", "fields"):
        assert second[key] == first[key]
    await connection.reply_subscribed(second, cursor="c1", scope="s", resumed=True)
    for cursor, n in (
        ("c1", 1),
        ("c2", 2),
        ("c2", 2),
        ("c3", 3),
    ):  # a server may send an event twice
        frame = change_event(second, "created", str(n), cursor, n=n)
        await connection.send({**frame, "replayed": True})
    await client.expect("w", "event", id="2", replayed=True)
    await client.expect("w", "event", id="3")
    await client.expect_nothing("w")


async def subscription_resumes_after_two_losses_without_events(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_watching(server, client)
    for _ in range(2):
        connection.abort()
        connection = await accept_reconnect(server, client)
        request = await connection.receive("subscribe")
        assert request["since"] == "c0"
        await connection.reply_subscribed(request, cursor="c0", scope="s", resumed=True)


async def subscription_resumes_from_cursor_frame(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    name = request["subscription"]
    await connection.send({"type": "cursor", "subscription": name, "cursor": "c9"})
    await connection.send(change_event(request, "created", "1", None))  # no log: no cursor
    await client.wait_for("w", "event", id="1")
    connection.abort()
    connection = await accept_reconnect(server, client)
    assert (await connection.receive("subscribe"))["since"] == "c9"


async def resync_is_reported_with_its_reason(server: ScriptedServer, client: Driver) -> None:
    connection, _ = await start_watching(server, client)
    for number, reason in enumerate(
        ("epoch_changed", "retention", "ahead_of_head", "invalid_cursor", "scope_changed")
    ):
        connection.abort()
        connection = await accept_reconnect(server, client)
        request = await connection.receive("subscribe")
        resync = {"resumed": False, "resync": {"reason": reason}}
        await connection.reply_subscribed(request, cursor=f"d{number}", scope="t", **resync)
        await client.expect("w", "resync", reason=reason)
    connection.abort()
    connection = await accept_reconnect(server, client)
    request = await connection.receive("subscribe")
    assert (request["since"], request["scope"]) == ("d4", "t")


async def data_is_loaded_again_after_permissions_changed(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_watching(server, client)
    await connection.close(4201)
    for cursor in ("c0", "d1"):  # the second loss is an ordinary one
        connection = await accept_reconnect(server, client)
        request = await connection.receive("subscribe")
        # no scope is empty, so a server cannot continue from the position
        assert (request["since"], request["scope"]) == (cursor, "" if cursor == "c0" else "t")
        if cursor == "c0":
            resync = {"resumed": False, "resync": {"reason": "scope_changed"}}
            await connection.reply_subscribed(request, cursor="d1", scope="t", **resync)
            await client.expect("w", "resync", reason="scope_changed")
            connection.abort()


async def resync_is_followed_by_snapshot_when_requested(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts", options={"snapshot": True})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    assert request["snapshot"] is True
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {}), more=True, cursor="c0")
    await connection.send_snapshot(request, ("2", {}), cursor="c0")
    await client.expect("w", "snapshot", ids=["1", "2"], truncated=False)
    await client.expect("w", "ready")
    connection.abort()
    connection = await accept_reconnect(server, client)
    request = await connection.receive("subscribe")
    assert request["since"] == "c0"
    resync = {"resumed": False, "resync": {"reason": "retention"}}
    await connection.reply_subscribed(request, cursor="c7", scope="s", **resync)
    await client.expect("w", "resync", reason="retention")
    await connection.send_snapshot(request, ("2", {}), ("3", {}), cursor="c7", truncated=True)
    await client.expect("w", "snapshot", ids=["2", "3"], truncated=True)


async def snapshot_interrupted_by_loss_is_requested_again(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts", options={"snapshot": True})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {}), more=True, cursor="c0")
    await asyncio.sleep(0.1)
    connection.abort()
    connection = await accept_reconnect(server, client)
    request = await connection.receive("subscribe")
    assert "since" not in request
    await connection.reply_subscribed(request, cursor="c4", scope="s")
    await connection.send_snapshot(request, ("2", {}), cursor="c4")
    await client.expect("w", "snapshot", ids=["2"])


async def event_for_two_subscriptions_is_reported_once_for_each(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("watch", "a", collection="posts")
    await client.do("watch", "b", collection="posts")
    connection = await server.accept_authenticated()
    requests = [await connection.receive("subscribe") for _ in "ab"]
    assert requests[0]["subscription"] != requests[1]["subscription"]
    for request in requests:
        await connection.reply_subscribed(request, cursor="c0", scope="s")
    both = [request["subscription"] for request in requests]
    event = change_event(requests[0], "created", "1", "c1")
    await connection.send({**event, "subscriptions": both}, event)
    for who in "ab":
        await client.wait_for(who, "event", id="1")
        await client.expect_nothing(who)


async def batched_events_are_reported_in_order(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts")
    await client.do("room", "r", name="chat")
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    join = await connection.receive("join")
    await connection.reply(join, "joined", room="chat", participants=0, members=[])
    await client.expect("w", "ready")
    events = [change_event(request, "created", str(n), f"c{n}") for n in range(1, 4)]
    await connection.send({"type": "events", "events": [*events, broadcast_event("chat", "hi")]})
    for n in range(1, 4):
        await client.expect("w", "event", id=str(n))
    await client.wait_for("r", "message", message="hi")


async def events_are_acknowledged_in_groups(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    for n in range(1, 201):
        await connection.send(change_event(request, "created", str(n), f"c{n}"))
    await client.wait_for("w", "event", id="200")
    async with asyncio.timeout(10):
        while not connection.acks or int(connection.acks[-1][1:]) <= 100:
            await asyncio.sleep(0.02)
    # often enough for an ack window of 256, much less often than there are events
    assert 2 <= len(connection.acks) <= 20


async def refused_subscription_is_not_requested_again(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="secrets")
    await client.do("watch", "v", collection="posts", options={"filters": {"nope": 1}})
    connection = await server.accept_authenticated()
    await connection.reply_error(await connection.receive("subscribe"), "unknown_collection")
    await connection.reply_error(await connection.receive("subscribe"), "invalid_filter")
    await client.wait_for("w", "error", code="unknown_collection")
    await client.wait_for("v", "error", code="invalid_filter")
    connection.abort()
    connection = await accept_reconnect(server, client)
    await connection.receive_nothing()


async def rate_limited_subscription_is_requested_again(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.accept_authenticated()
    refusal = {"retry_after_ms": 100}
    await connection.reply_error(await connection.receive("subscribe"), "rate_limited", **refusal)
    await connection.reply_subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.expect("w", "ready")


async def updated_subscription_is_resumed_after_loss(
    server: ScriptedServer, client: Driver
) -> None:
    connection, first = await start_watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"n": 2}})
    second = await connection.receive("subscribe")
    assert second["subscription"] == first["subscription"]
    assert second["filters"] == {"n": 2}
    assert "since" not in second
    await connection.reply_subscribed(second, cursor="c5", scope="t")
    await client.expect("w", "ready")
    connection.abort()
    connection = await accept_reconnect(server, client)
    third = await connection.receive("subscribe")
    assert (third["filters"], third["since"], third["scope"]) == ({"n": 2}, "c5", "t")


async def refused_update_keeps_the_old_subscription(server: ScriptedServer, client: Driver) -> None:
    connection, first = await start_watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"nope": 2}})
    await connection.reply_error(await connection.receive("subscribe"), "invalid_filter")
    await client.wait_for("w", "failed", code="invalid_filter")
    await connection.send(change_event(first, "created", "1", "c1"))
    await client.wait_for("w", "event", id="1")
    connection.abort()
    connection = await accept_reconnect(server, client)
    again = await connection.receive("subscribe")
    assert (again["filters"], again["since"]) == ({"n": 1}, "c1")


async def subscription_is_ready_after_a_refused_update(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_watching(server, client)
    await client.do("list", "l", collection="posts")
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, cursor="c0")
    await client.wait_for("l", "ready")
    for id in ("w", "l"):
        await client.do("update", id, options={"filters": {"nope": 2}})
        await connection.reply_error(await connection.receive("subscribe"), "invalid_filter")
        await client.wait_for(id, "failed", code="invalid_filter")
        await client.do("ready", id)
        await client.wait_for(id, "ready")


async def unanswered_update_is_repeated_after_loss(server: ScriptedServer, client: Driver) -> None:
    connection, _ = await start_watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"nope": 2}})
    await connection.receive("subscribe")
    connection.abort()
    connection = await accept_reconnect(server, client)
    updated = await connection.receive("subscribe")
    assert (updated["filters"], "since" in updated) == ({"nope": 2}, False)
    await connection.reply_error(updated, "invalid_filter")
    old = await connection.receive("subscribe")  # this connection did not have it yet
    assert (old["filters"], old["since"], old["scope"]) == ({"n": 1}, "c0", "s")
    await client.wait_for("w", "failed", code="invalid_filter")


async def successive_updates_are_combined_and_all_answered(
    server: ScriptedServer, client: Driver
) -> None:
    """As when a user types into a search box."""
    connection, _ = await start_watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"n": 2}})
    await client.do("update", "w", options={"fields": ["title"]})
    requests = [await connection.receive("subscribe") for _ in "ab"]
    assert [request["filters"] for request in requests] == [{"n": 2}] * 2
    assert [request.get("fields") for request in requests] == [None, ["title"]]
    for request in requests:
        await connection.reply_subscribed(request, cursor="c1", scope="t")
    for _ in requests:
        await client.expect("w", "ready")
    connection.abort()
    connection = await accept_reconnect(server, client)
    again = await connection.receive("subscribe")
    assert (again["filters"], again["fields"], again["since"]) == ({"n": 2}, ["title"], "c1")


async def refused_update_replaced_by_another_is_ignored(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"nope": 2}})
    await client.do("update", "w", options={"filters": {"n": 3}})
    wrong, right = [await connection.receive("subscribe") for _ in "ab"]
    await connection.reply_error(wrong, "invalid_filter")
    await connection.reply_subscribed(right, cursor="c1", scope="t")
    for _ in "ab":
        await client.expect("w", "ready")
    await connection.send(change_event(right, "created", "1", "c2"))
    await client.expect("w", "event", id="1")


async def stopped_subscription_is_unsubscribed(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_watching(server, client)
    await client.do("stop", "w")
    ended = await connection.receive("unsubscribe")
    assert ended["subscription"] == request["subscription"]
    await connection.send(change_event(request, "created", "1", "c1"))
    await client.expect_nothing("w")
    connection.abort()
    connection = await accept_reconnect(server, client)
    await connection.receive_nothing()


async def subscription_stopped_before_its_answer_is_unsubscribed(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    for who in "ab":
        await client.do("watch", who, collection=who)
    connection = await server.accept_authenticated()
    requests = [await connection.receive("subscribe") for _ in "ab"]
    await client.do("stop", "a")  # before its request is answered
    assert (await connection.receive("unsubscribe"))["subscription"].startswith("a")
    await connection.reply_error(requests[1], "rate_limited", retry_after_ms=3000)
    await asyncio.sleep(0.2)
    await client.do("stop", "b")  # while it waits to retry
    await connection.receive("unsubscribe")
    await connection.reply_subscribed(requests[0], cursor="c0")
    await connection.receive_nothing(3.2)
