"""Watches: resuming, snapshots, replacing, refusals."""

from __future__ import annotations

import asyncio

from tests.clients.drivers import Driver
from tests.clients.scenarios.steps import back, start, watching
from tests.clients.scripted_server import Script, change, said


async def tells_events_with_their_data(server: Script, client: Driver) -> None:
    await start(server, client)
    filters = {"status": "published"}
    await client.do("watch", "w", collection="posts", options={"filters": filters})
    connection = await server.hello()
    request = await connection.receive("subscribe")
    assert (request["collection"], request["filters"]) == ("posts", filters)
    assert "since" not in request
    await connection.subscribed(request, cursor="c0", scope="s")
    await client.next("w", "ready")
    await connection.send(change(request, "created", "1", "c1", title="Hello"))
    await client.next(
        "w", "event", event="created", id="1", data={"title": "Hello"}, cursor="c1", replayed=False
    )


async def resumes_after_a_cut_without_loss_or_duplicate(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "w", collection="posts", options={"fields": ["title"]})
    connection = await server.hello()
    first = await connection.receive("subscribe")
    await connection.subscribed(first, cursor="c0", scope="s")
    await connection.send(change(first, "created", "1", "c1", n=1))
    await client.until("w", "event", id="1")
    connection.cut()
    connection = await back(server, client)
    second = await connection.receive("subscribe")
    assert (second["since"], second["scope"]) == ("c1", "s")
    for key in ("subscription", "collection", "fields"):
        assert second[key] == first[key]
    await connection.subscribed(second, cursor="c1", scope="s", resumed=True)
    for cursor, n in (("c1", 1), ("c2", 2), ("c2", 2), ("c3", 3)):  # a server may tell twice
        frame = change(second, "created", str(n), cursor, n=n)
        await connection.send({**frame, "replayed": True})
    await client.next("w", "event", id="2", replayed=True)
    await client.next("w", "event", id="3")
    await client.nothing("w")


async def a_second_cut_before_any_event_loses_nothing(server: Script, client: Driver) -> None:
    connection, request = await watching(server, client)
    for _ in range(2):
        connection.cut()
        connection = await back(server, client)
        request = await connection.receive("subscribe")
        assert request["since"] == "c0"
        await connection.subscribed(request, cursor="c0", scope="s", resumed=True)


async def told_cursors_are_kept(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    name = request["subscription"]
    await connection.send({"type": "cursor", "subscription": name, "cursor": "c9"})
    await connection.send(change(request, "created", "1", None))  # no log: no cursor
    await client.until("w", "event", id="1")
    connection.cut()
    connection = await back(server, client)
    assert (await connection.receive("subscribe"))["since"] == "c9"


async def a_resync_is_told_with_its_reason(server: Script, client: Driver) -> None:
    connection, _ = await watching(server, client)
    for number, reason in enumerate(
        ("epoch_changed", "retention", "ahead_of_head", "invalid_cursor", "scope_changed")
    ):
        connection.cut()
        connection = await back(server, client)
        request = await connection.receive("subscribe")
        resync = {"resumed": False, "resync": {"reason": reason}}
        await connection.subscribed(request, cursor=f"d{number}", scope="t", **resync)
        await client.next("w", "resync", reason=reason)
    connection.cut()
    connection = await back(server, client)
    request = await connection.receive("subscribe")
    assert (request["since"], request["scope"]) == ("d4", "t")


async def a_resync_with_a_snapshot(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "w", collection="posts", options={"snapshot": True})
    connection = await server.hello()
    request = await connection.receive("subscribe")
    assert request["snapshot"] is True
    await connection.subscribed(request, cursor="c0", scope="s")
    await connection.snapshot(request, ("1", {}), more=True, cursor="c0")
    await connection.snapshot(request, ("2", {}), cursor="c0")
    await client.next("w", "snapshot", ids=["1", "2"], truncated=False)
    await client.next("w", "ready")
    connection.cut()
    connection = await back(server, client)
    request = await connection.receive("subscribe")
    assert request["since"] == "c0"
    resync = {"resumed": False, "resync": {"reason": "retention"}}
    await connection.subscribed(request, cursor="c7", scope="s", **resync)
    await client.next("w", "resync", reason="retention")
    await connection.snapshot(request, ("2", {}), ("3", {}), cursor="c7", truncated=True)
    await client.next("w", "snapshot", ids=["2", "3"], truncated=True)


async def a_cut_within_a_snapshot_begins_it_anew(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "w", collection="posts", options={"snapshot": True})
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    await connection.snapshot(request, ("1", {}), more=True, cursor="c0")
    await asyncio.sleep(0.1)
    connection.cut()
    connection = await back(server, client)
    request = await connection.receive("subscribe")
    assert "since" not in request
    await connection.subscribed(request, cursor="c4", scope="s")
    await connection.snapshot(request, ("2", {}), cursor="c4")
    await client.next("w", "snapshot", ids=["2"])


async def one_change_for_two_subscriptions(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "a", collection="posts")
    await client.do("watch", "b", collection="posts")
    connection = await server.hello()
    requests = [await connection.receive("subscribe") for _ in "ab"]
    assert requests[0]["subscription"] != requests[1]["subscription"]
    for request in requests:
        await connection.subscribed(request, cursor="c0", scope="s")
    both = [request["subscription"] for request in requests]
    event = change(requests[0], "created", "1", "c1")
    await connection.send({**event, "subscriptions": both}, event)
    for who in "ab":
        await client.until(who, "event", id="1")
        await client.nothing(who)


async def batches_are_taken_in_order(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "w", collection="posts")
    await client.do("room", "r", name="chat")
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    join = await connection.receive("join")
    await connection.answer(join, "joined", room="chat", participants=0, members=[])
    await client.next("w", "ready")
    events = [change(request, "created", str(n), f"c{n}") for n in range(1, 4)]
    await connection.send({"type": "events", "events": [*events, said("chat", "hi")]})
    for n in range(1, 4):
        await client.next("w", "event", id=str(n))
    await client.until("r", "message", message="hi")


async def events_are_acknowledged(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    for n in range(1, 201):
        await connection.send(change(request, "created", str(n), f"c{n}"))
    await client.until("w", "event", id="200")
    async with asyncio.timeout(10):
        while not connection.acks or int(connection.acks[-1][1:]) <= 100:
            await asyncio.sleep(0.02)
    # often enough for a credit of 256, far less often than there are events
    assert 2 <= len(connection.acks) <= 20


async def a_refusal_is_told_and_final(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "w", collection="secrets")
    await client.do("watch", "v", collection="posts", options={"filters": {"nope": 1}})
    connection = await server.hello()
    await connection.refuse(await connection.receive("subscribe"), "unknown_collection")
    await connection.refuse(await connection.receive("subscribe"), "invalid_filter")
    await client.until("w", "error", code="unknown_collection")
    await client.until("v", "error", code="invalid_filter")
    connection.cut()
    connection = await back(server, client)
    await connection.nothing()


async def refused_for_now_is_asked_again(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.hello()
    refusal = {"retry_after_ms": 100}
    await connection.refuse(await connection.receive("subscribe"), "rate_limited", **refusal)
    await connection.subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.next("w", "ready")


async def a_subscription_is_replaced(server: Script, client: Driver) -> None:
    connection, first = await watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"n": 2}})
    second = await connection.receive("subscribe")
    assert second["subscription"] == first["subscription"]
    assert second["filters"] == {"n": 2}
    assert "since" not in second
    await connection.subscribed(second, cursor="c5", scope="t")
    await client.next("w", "ready")
    connection.cut()
    connection = await back(server, client)
    third = await connection.receive("subscribe")
    assert (third["filters"], third["since"], third["scope"]) == ({"n": 2}, "c5", "t")


async def a_refused_replacement_leaves_the_old(server: Script, client: Driver) -> None:
    connection, first = await watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"nope": 2}})
    await connection.refuse(await connection.receive("subscribe"), "invalid_filter")
    await client.until("w", "failed", code="invalid_filter")
    await connection.send(change(first, "created", "1", "c1"))
    await client.until("w", "event", id="1")
    connection.cut()
    connection = await back(server, client)
    again = await connection.receive("subscribe")
    assert (again["filters"], again["since"]) == ({"n": 1}, "c1")


async def a_replacement_outlives_a_cut(server: Script, client: Driver) -> None:
    connection, _ = await watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"nope": 2}})
    await connection.receive("subscribe")
    connection.cut()
    connection = await back(server, client)
    wanted = await connection.receive("subscribe")
    assert (wanted["filters"], "since" in wanted) == ({"nope": 2}, False)
    await connection.refuse(wanted, "invalid_filter")
    old = await connection.receive("subscribe")  # which this connection did not have yet
    assert (old["filters"], old["since"], old["scope"]) == ({"n": 1}, "c0", "s")
    await client.until("w", "failed", code="invalid_filter")


async def updates_in_a_row_end_with_the_last(server: Script, client: Driver) -> None:
    """Someone types into a search box: none of it is undone by another, and all are answered."""
    connection, _ = await watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"n": 2}})
    await client.do("update", "w", options={"fields": ["title"]})
    requests = [await connection.receive("subscribe") for _ in "ab"]
    assert [request["filters"] for request in requests] == [{"n": 2}] * 2
    assert [request.get("fields") for request in requests] == [None, ["title"]]
    for request in requests:
        await connection.subscribed(request, cursor="c1", scope="t")
    for _ in requests:
        await client.next("w", "ready")
    connection.cut()
    connection = await back(server, client)
    again = await connection.receive("subscribe")
    assert (again["filters"], again["fields"], again["since"]) == ({"n": 2}, ["title"], "c1")


async def a_refused_update_that_was_replaced_ends_nothing(server: Script, client: Driver) -> None:
    connection, _ = await watching(server, client, filters={"n": 1})
    await client.do("update", "w", options={"filters": {"nope": 2}})
    await client.do("update", "w", options={"filters": {"n": 3}})
    wrong, right = [await connection.receive("subscribe") for _ in "ab"]
    await connection.refuse(wrong, "invalid_filter")
    await connection.subscribed(right, cursor="c1", scope="t")
    for _ in "ab":
        await client.next("w", "ready")
    await connection.send(change(right, "created", "1", "c2"))
    await client.next("w", "event", id="1")


async def unsubscribes(server: Script, client: Driver) -> None:
    connection, request = await watching(server, client)
    await client.do("stop", "w")
    ended = await connection.receive("unsubscribe")
    assert ended["subscription"] == request["subscription"]
    await connection.send(change(request, "created", "1", "c1"))
    await client.nothing("w")
    connection.cut()
    connection = await back(server, client)
    await connection.nothing()


async def what_is_stopped_stays_so(server: Script, client: Driver) -> None:
    await start(server, client)
    for who in "ab":
        await client.do("watch", who, collection=who)
    connection = await server.hello()
    requests = [await connection.receive("subscribe") for _ in "ab"]
    await client.do("stop", "a")  # while its answer is under way
    assert (await connection.receive("unsubscribe"))["subscription"].startswith("a")
    await connection.refuse(requests[1], "rate_limited", retry_after_ms=2000)
    await asyncio.sleep(0.2)
    await client.do("stop", "b")  # while it waits for its turn
    await connection.receive("unsubscribe")
    await connection.subscribed(requests[0], cursor="c0")
    await connection.nothing(2.2)
