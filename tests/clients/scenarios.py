"""The conformance list: what a client of ours does, whatever the language.

Each scenario is a conversation between a scripted server and a client that is driven by commands
(``drivers.py``). Whoever writes another client runs it against these.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from typing import Any

from tests.clients.drivers import Driver
from tests.clients.script import Script, change, said


async def start(server: Script, client: Driver, **options: Any) -> None:
    await client.do("create", url=server.url, **{"tokens": "key", **options})
    await client.next("db", "status", status="connecting")


async def back(server: Script, client: Driver) -> Any:
    """The connection after a loss."""
    await client.until("db", "status", status="waiting")
    connection = await server.hello()
    await client.until("db", "status", status="live")
    return connection


# authentication


async def authenticates_first(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.accept()
    auth = await connection.receive("auth")
    assert auth["token"] == "key"
    assert auth["batch"] is True
    await client.do("watch", "w", collection="posts")
    await connection.nothing()  # not before it is let in
    await server.welcome(connection, auth)
    await client.next("db", "status", status="live")
    await connection.receive("subscribe")


async def without_a_token_the_session_counts(server: Script, client: Driver) -> None:
    await start(server, client, tokens=None)
    connection = await server.hello()
    assert "token" not in connection.auth


async def a_refused_credential_ends_it(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.accept()
    await connection.refuse(await connection.receive("auth"), "authentication_failed")
    await connection.close(4500)
    await client.until("db", "status", status="closed", code=4500)
    await client.next("w", "failed", code=4500)
    await asyncio.sleep(0.3)
    assert server.count == 1


async def a_token_is_renewed_before_it_expires(server: Script, client: Driver) -> None:
    await start(server, client, tokens=["first", "second"], timeout=2000)
    soon = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 2))
    connection = await server.hello(expires_at=soon)
    assert connection.auth["token"] == "first"
    auth = await connection.receive("auth")
    assert auth["token"] == "second"
    await server.welcome(connection, auth)
    await client.do("watch", "w", collection="posts")
    await connection.subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.next("w", "ready")
    assert server.count == 1


async def an_expired_token_is_replaced_at_once(server: Script, client: Driver) -> None:
    await start(server, client, tokens=["first", "second"], luck=0.9)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    await connection.close(4110)
    await client.next("db", "status", status="waiting", delay=0)
    connection = await server.hello()
    assert connection.auth["token"] == "second"


# subscriptions


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
    await start(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    await client.next("w", "ready")
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
    await start(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.hello()
    await connection.subscribed(await connection.receive("subscribe"), cursor="c0", scope="s")
    await client.next("w", "ready")
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
    await asyncio.sleep(0.2)
    # often enough for a credit of 256, far less often than there are events
    assert 2 <= len(connection.acks) <= 20
    assert int(connection.acks[-1][1:]) > 100


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
    await start(server, client)
    await client.do("watch", "w", collection="posts", options={"filters": {"n": 1}})
    connection = await server.hello()
    first = await connection.receive("subscribe")
    await connection.subscribed(first, cursor="c0", scope="s")
    await client.next("w", "ready")
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
    await start(server, client)
    await client.do("watch", "w", collection="posts", options={"filters": {"n": 1}})
    connection = await server.hello()
    first = await connection.receive("subscribe")
    await connection.subscribed(first, cursor="c0", scope="s")
    await client.next("w", "ready")
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
    await start(server, client)
    await client.do("watch", "w", collection="posts", options={"filters": {"n": 1}})
    connection = await server.hello()
    await connection.subscribed(await connection.receive("subscribe"), cursor="c0", scope="s")
    await client.next("w", "ready")
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


async def unsubscribes(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    await client.next("w", "ready")
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
    await connection.refuse(requests[1], "rate_limited", retry_after_ms=300)
    await asyncio.sleep(0.1)
    await client.do("stop", "b")  # while it waits for its turn
    await connection.receive("unsubscribe")
    await connection.subscribed(requests[0], cursor="c0")
    await connection.nothing(0.6)


# live sets


async def a_live_set_follows(server: Script, client: Driver) -> None:
    await start(server, client)
    options = {"filters": {"open": True}, "order": "-n"}
    await client.do("live", "l", collection="posts", options=options)
    await client.next("l", "documents", documents=[])
    connection = await server.hello()
    request = await connection.receive("subscribe")
    assert request["transitions"] is True
    assert request["snapshot"] == {"order": "-n"}
    await connection.subscribed(request, cursor="c0", scope="s")
    await connection.snapshot(request, ("2", {"n": 9}), ("1", {"n": 5}), cursor="c0")
    await client.next("l", "documents", documents=[["2", {"n": 9}], ["1", {"n": 5}]])
    await client.next("l", "ready")
    await connection.send(change(request, "created", "3", "c1", n=7))
    await client.next(
        "l", "documents", documents=[["2", {"n": 9}], ["3", {"n": 7}], ["1", {"n": 5}]]
    )
    await connection.send(change(request, "updated", "1", "c2", n=8))
    await client.next(
        "l", "documents", documents=[["2", {"n": 9}], ["1", {"n": 8}], ["3", {"n": 7}]]
    )
    await connection.send(change(request, "left", "2", "c3"))
    await client.next("l", "documents", documents=[["1", {"n": 8}], ["3", {"n": 7}]])
    await connection.send(change(request, "entered", "10", "c4", n=7))  # ties by id, as numbers
    await client.next(
        "l", "documents", documents=[["1", {"n": 8}], ["3", {"n": 7}], ["10", {"n": 7}]]
    )
    await connection.send(change(request, "deleted", "1", "c5", n=8))
    await client.next("l", "documents", documents=[["3", {"n": 7}], ["10", {"n": 7}]])


async def a_live_set_does_not_flicker(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("live", "l", collection="posts", options={"order": "n"})
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    await connection.snapshot(request, ("1", {"n": 1}), ("2", {"n": 2}), cursor="c0")
    await client.until("l", "documents", documents=[["1", {"n": 1}], ["2", {"n": 2}]])
    await client.next("l", "ready")
    connection.cut()
    connection = await back(server, client)
    request = await connection.receive("subscribe")
    resync = {"resumed": False, "resync": {"reason": "retention"}}
    await connection.subscribed(request, cursor="c7", scope="s", **resync)
    await connection.snapshot(request, ("1", {"n": 1}), more=True, cursor="c7")
    await client.nothing("l")  # what was there stays until the whole is here
    await connection.snapshot(request, ("3", {"n": 3}), cursor="c7")
    await client.next("l", "documents", documents=[["1", {"n": 1}], ["3", {"n": 3}]])
    # and where nothing has changed nothing is told
    connection.cut()
    connection = await back(server, client)
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c8", scope="s", **resync)
    await connection.snapshot(request, ("1", {"n": 1}), ("3", {"n": 3}), cursor="c8")
    await client.nothing("l")


async def a_live_set_with_a_limit_is_a_window(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("live", "l", collection="posts", options={"order": "-n", "limit": 2})
    connection = await server.hello()
    request = await connection.receive("subscribe")
    assert request["snapshot"] == {"order": "-n", "limit": 2}
    await connection.subscribed(request, cursor="c0", scope="s")
    snapshot = (("9", {"n": 9}), ("8", {"n": 8}))
    await connection.snapshot(request, *snapshot, cursor="c0", truncated=True)
    await client.until("l", "documents", documents=[["9", {"n": 9}], ["8", {"n": 8}]])
    await client.next("l", "ready")
    await connection.send(change(request, "created", "10", "c1", n=10))
    await client.next("l", "documents", documents=[["10", {"n": 10}], ["9", {"n": 9}]])
    await connection.send(change(request, "deleted", "10", "c2", n=10))
    await client.next("l", "documents", documents=[["9", {"n": 9}], ["8", {"n": 8}]])
    # 9 falls to 1, behind documents that are not known here: they are asked for
    await connection.send(change(request, "updated", "9", "c3", n=1))
    await client.next("l", "documents", documents=[["8", {"n": 8}]])
    request = await connection.receive("subscribe")
    assert "since" not in request
    await connection.subscribed(request, cursor="c3", scope="s")
    snapshot = (("8", {"n": 8}), ("7", {"n": 7}))
    await connection.snapshot(request, *snapshot, cursor="c3", truncated=True)
    await client.next("l", "documents", documents=[["8", {"n": 8}], ["7", {"n": 7}]])


async def a_window_that_grows_is_bounded(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("live", "l", collection="posts", options={"order": "-n", "limit": 1})
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    await connection.snapshot(request, cursor="c0")
    await client.until("l", "ready")
    for n in range(1, 6):
        await connection.send(change(request, "created", str(n), f"c{n}", n=n))
        await client.next("l", "documents", documents=[[str(n), {"n": n}]])
    for n in (5, 4):
        await connection.send(change(request, "deleted", str(n), f"d{n}", n=n))
        await client.next("l", "documents", documents=[[str(n - 1), {"n": n - 1}]])
    await connection.nothing()
    # 2 and 1 were let go when there were four: they are asked for
    await connection.send(change(request, "deleted", "3", "d3", n=3))
    await client.next("l", "documents", documents=[])
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="d3", scope="s")
    await connection.snapshot(request, ("2", {"n": 2}), cursor="d3", truncated=True)
    await client.next("l", "documents", documents=[["2", {"n": 2}]])


async def a_window_is_filled_up_after_a_cut(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("live", "l", collection="posts", options={"order": "n", "limit": 1})
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    await connection.snapshot(request, ("1", {"n": 1}), cursor="c0", truncated=True)
    await client.until("l", "ready")
    await connection.send(change(request, "left", "1", "c1"))
    await client.next("l", "documents", documents=[])
    connection.cut()
    connection = await back(server, client)
    request = await connection.receive("subscribe")
    if "since" in request:
        await connection.subscribed(request, cursor="c1", scope="s", resumed=True)
        request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c1", scope="s")
    await connection.snapshot(request, ("2", {"n": 2}), cursor="c1", truncated=True)
    await client.next("l", "documents", documents=[["2", {"n": 2}]])


async def a_live_set_refused_is_emptied(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("live", "l", collection="posts")
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    await connection.snapshot(request, ("1", {"n": 1}), cursor="c0")
    await client.until("l", "ready")
    await connection.close(4201)
    connection = await back(server, client)
    await connection.refuse(await connection.receive("subscribe"), "unknown_collection")
    await client.next("l", "error", code="unknown_collection")
    await client.next("l", "documents", documents=[])


async def documents_too_large_to_be_sent(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("live", "l", collection="posts", options={"order": "n"})
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    documents = [{"id": "1", "data": {"n": 1}}, {"id": "2", "truncated": True}]
    name = {"type": "snapshot", "subscription": request["subscription"]}
    await connection.send({**name, "documents": documents, "cursor": "c0", "more": False})
    await client.until("l", "documents", documents=[["1", {"n": 1}], ["2", {}]])
    await client.next("l", "ready")
    event = change(request, "updated", "1", "c1")
    await connection.send({**event, "document": {"id": "1"}, "truncated": True})
    await client.until("l", "documents", documents=[["1", {}], ["2", {}]])
    await connection.nothing()


async def the_key_is_an_order_too(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("live", "l", collection="posts", options={"order": "-id"})
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    await connection.snapshot(request, ("10", {}), ("9", {}), cursor="c0")
    await client.until("l", "documents", documents=[["10", {}], ["9", {}]])


async def decimals_are_ordered_as_numbers(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("live", "l", collection="posts", options={"order": "n"})
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    data = {"1": "10.50", "2": "9.75", "3": None, "4": "-1.00"}
    await connection.snapshot(request, *((id, {"n": n}) for id, n in data.items()), cursor="c0")
    expected = [[id, {"n": data[id]}] for id in ("4", "2", "1", "3")]
    await client.until("l", "documents", documents=expected)


# losses


async def terminal_codes_end_it(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    await client.do("watch", "w", collection="posts")
    await connection.receive("subscribe")
    await connection.close(4505)
    await client.until("db", "status", status="closed", code=4505)
    await client.next("w", "failed", code=4505)
    await asyncio.sleep(0.3)
    assert server.count == 1


async def losses_back_off(server: Script, client: Driver) -> None:
    await start(server, client, luck=0.125)
    # full jitter: a share of 0.5, 1, 2, ... seconds
    for code, delay in ((4100, 0.0625), (1011, 0.125), (4120, 0.25), (4121, 0.5)):
        connection = await server.hello()
        await client.next("db", "status", status="live")
        await connection.close(code, say=code >= 4000)
        note = await client.next("db", "status", status="waiting")
        assert abs(note["delay"] - delay) < 1e-9, note
        await client.next("db", "status", status="connecting")


async def some_codes_bring_it_back_at_once(server: Script, client: Driver) -> None:
    for code in (4200, 4201):
        await start(server, client, luck=0.9)
        connection = await server.hello()
        await client.next("db", "status", status="live")
        await connection.close(code)
        await client.next("db", "status", status="waiting", delay=0)
        await server.hello()
        await client.until("db", "status", status="live")
        await client.do("close")
        await client.until("db", "status", status="closed")


async def the_server_says_when(server: Script, client: Driver) -> None:
    for code, low, high in ((4131, 0.4, 0.65), (4130, 0.4, 0.65), (4200, 0.2, 0.2)):
        await start(server, client, luck=0.5)
        connection = await server.hello()
        await client.next("db", "status", status="live")
        await connection.close(code, 400)
        note = await client.next("db", "status", status="waiting")
        # not before, and not all at the same time; a draining server wants them spread
        assert low <= note["delay"] <= high + 1e-9, note
        began = time.monotonic()
        await server.hello()
        assert time.monotonic() - began >= low - 0.1
        await client.until("db", "status", status="live")
        await client.do("close")
        await client.until("db", "status", status="closed")


async def an_unavailable_database_gets_five_seconds(server: Script, client: Driver) -> None:
    await start(server, client, luck=0.5)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    await connection.close(4101)
    note = await client.next("db", "status", status="waiting")
    assert 5 <= note["delay"] <= 5.5


async def a_closing_frame_counts_where_the_code_is_lost(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    closing = {"type": "closing", "code": 4500, "reason": "Revoked.", "retry_after_ms": None}
    await connection.send(closing)
    await asyncio.sleep(0.1)
    connection.cut()
    await client.until("db", "status", status="closed", code=4500)


async def a_dead_line_is_noticed(server: Script, client: Driver) -> None:
    await start(server, client, timeout=1000)
    connection = await server.hello(heartbeat=1)
    await client.next("db", "status", status="live")
    while connection.pings < 2:
        await asyncio.sleep(0.05)
    connection.mute = True
    await client.next("db", "status", status="waiting")
    await server.hello()
    await client.until("db", "status", status="live")


async def a_server_that_accepts_and_is_silent(server: Script, client: Driver) -> None:
    await start(server, client, timeout=600)
    connection = await server.accept()
    await connection.receive("auth")
    await client.next("db", "status", status="waiting")
    await server.hello()


async def a_sleep_is_noticed_at_once(server: Script, client: Driver) -> None:
    await start(server, client, timeout=2000)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    while not connection.pings:
        await asyncio.sleep(0.05)
    pings = connection.pings
    await client.do("sleep", seconds=3600)
    async with asyncio.timeout(3):  # the next beat would be 25 s away
        while connection.pings == pings:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    assert server.count == 1  # the line was alive after all
    connection.mute = True
    await client.do("sleep", seconds=3600)
    await client.next("db", "status", status="waiting")
    await server.hello()


async def time_asleep_is_not_held_against_the_line(server: Script, client: Driver) -> None:
    await start(server, client, timeout=2000)
    connection = await server.hello(heartbeat=1)
    await client.next("db", "status", status="live")
    connection.mute = True
    while not connection.pings:
        await asyncio.sleep(0.02)
    pings = connection.pings  # which is not answered before the lid is shut
    await client.do("sleep", seconds=3600)
    async with asyncio.timeout(5):
        while connection.pings == pings:
            await asyncio.sleep(0.02)
    await connection.send({"type": "pong"})
    connection.mute = False
    await client.nothing("db", 1.5)
    assert server.count == 1


async def errors_of_nobody_are_told(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.hello()
    await connection.send({"type": "error", "code": "too_large", "message": "No."})
    await client.until("db", "error", code="too_large")
    await connection.send({"type": "news from the future"}, {"type": "event", "event": "?"})
    await client.do("watch", "w", collection="posts")
    await connection.subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.next("w", "ready")


async def closing_is_final(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    await client.do("close")
    await asyncio.wait_for(connection.over.wait(), 10)
    await client.next("db", "status", status="closed")
    await asyncio.sleep(0.3)
    assert server.count == 1


# rooms


async def a_room_is_joined_again(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="chat", options={"history": 10, "state": {"mood": 1}})
    connection = await server.hello()
    join = await connection.receive("join")
    assert (join["room"], join["history"], join["state"]) == ("chat", 10, {"mood": 1})
    assert "presence" not in join
    ada, bob = {"id": "7", "name": "ada"}, {"id": "8", "name": "bob"}
    await connection.answer(join, "joined", room="chat", participants=2, members=[ada, bob])
    await client.next("r", "ready")
    await connection.send(said("chat", "before", replayed=True, cursor="m1"))
    await client.next("r", "message", message="before", replayed=True)
    await client.do("members", "r")
    await client.next("r", "members", members=[ada, bob], participants=2)
    cleo = {"id": "9", "name": "cleo"}
    presence = {"type": "presence", "room": "chat"}
    await connection.send({**presence, "event": "joined", "member": cleo, "participants": 3})
    await client.next("r", "presence", event="joined", id="9", members=["7", "8", "9"])
    await connection.send({**presence, "event": "left", "member": bob, "participants": 2})
    await client.next("r", "presence", event="left", members=["7", "9"])
    typing = {**cleo, "state": {"typing": True}}
    await connection.send({**presence, "event": "updated", "member": typing, "participants": 2})
    await client.next("r", "presence", event="updated", members=["7", "9"])
    await client.do("members", "r")
    await client.next("r", "members", members=[ada, typing], participants=2)
    connection.cut()
    connection = await back(server, client)
    join = await connection.receive("join")
    # history, for the case that the room does not go back so far
    assert (join["since"], join["state"], join["history"]) == ("m1", {"mood": 1}, 10)
    joined = {"room": "chat", "participants": 1, "members": [ada], "cursor": "m2"}
    await connection.answer(join, "joined", resumed=True, **joined)
    await connection.send(said("chat", "before", cursor="m1", replayed=True))
    await connection.send(said("chat", "meanwhile", cursor="m2", replayed=True))
    await client.next("r", "message", message="meanwhile")
    await client.do("members", "r")
    await client.next("r", "members", members=[ada], participants=1)


async def a_room_that_does_not_go_back_so_far(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.hello()
    join = await connection.receive("join")
    assert not {"since", "history"} & join.keys()
    joined = {"room": "chat", "participants": 0, "members": []}
    await connection.answer(join, "joined", cursor="m5", **joined)
    await client.next("r", "ready")
    for reason, cursor in (("retention", "m9"), ("not_kept", None)):
        connection.cut()
        connection = await back(server, client)
        join = await connection.receive("join")
        assert join["since"] == ("m5" if cursor else "m9")
        place = {"cursor": cursor} if cursor else {}
        resync = {"resumed": False, "resync": {"reason": reason}}
        await connection.answer(join, "joined", **joined, **resync, **place)
        await client.next("r", "resync", reason=reason)
    connection.cut()
    connection = await back(server, client)
    assert "since" not in await connection.receive("join")


async def the_server_speaks(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    await connection.send(said("*", "to all"), {"type": "event", "event": "direct", "message": 1})
    await client.next("db", "message", message="to all")
    await client.next("db", "message", message=1)


async def a_broadcast_is_sent_once(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="chat")
    await client.do("broadcast", "r", message="early", tag="a")
    connection = await server.hello()
    join = await connection.receive("join")
    await connection.answer(join, "joined", room="chat", participants=1, members=[])
    first = await connection.receive("broadcast")
    assert (first["room"], first["message"]) == ("chat", "early")
    await connection.answer(first, "sent", room="chat")
    await client.until("r", "sent", tag="a")
    await client.do("broadcast", "r", message="lost?", tag="b")
    lost = await connection.receive("broadcast")
    connection.cut()  # whether it was sent nobody knows: its key does
    connection = await back(server, client)
    join = await connection.receive("join")
    await connection.answer(join, "joined", room="chat", participants=1, members=[])
    again = await connection.receive("broadcast")
    assert again["message"] == "lost?"
    assert again["idempotency_key"] == lost["idempotency_key"] != first["idempotency_key"]
    await connection.answer(again, "sent", room="chat")
    await client.next("r", "sent", tag="b")
    await client.do("broadcast", "r", message="no", tag="c")
    await connection.refuse(
        await connection.receive("broadcast"), "rate_limited", retry_after_ms=50
    )
    await client.next("r", "failed", tag="c", code="rate_limited")
    await connection.nothing()


async def ones_state_is_told(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.hello()
    join = await connection.receive("join")
    ada = {"id": "7", "name": "ada"}
    await connection.answer(join, "joined", room="chat", participants=1, members=[ada])
    await client.next("r", "ready")
    await client.do("state", "r", state={"typing": True})
    request = await connection.receive("state")
    assert (request["room"], request["state"]) == ("chat", {"typing": True})
    await connection.answer(request, "state", room="chat")
    await client.next("r", "state", state={"typing": True})
    await client.do("members", "r")
    await client.next("r", "members", members=[{**ada, "state": {"typing": True}}])
    connection.cut()
    connection = await back(server, client)
    assert (await connection.receive("join"))["state"] == {"typing": True}


async def leaves_a_room(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="chat", options={"presence": False})
    connection = await server.hello()
    join = await connection.receive("join")
    assert join["presence"] is False
    await connection.answer(join, "joined", room="chat", participants=0, members=[])
    await client.next("r", "ready")
    await client.do("leave", "r")
    assert (await connection.receive("leave"))["room"] == "chat"
    await client.do("room", "q", name="other")
    await connection.receive("join")
    await client.do("leave", "q")  # while the answer is under way
    assert (await connection.receive("leave"))["room"] == "other"
    await connection.send(said("chat", "late"))
    await client.nothing("r")
    await client.do("broadcast", "r", message="too late", tag="a")
    await client.next("r", "failed", tag="a", code="closed")
    connection.cut()
    connection = await back(server, client)
    await connection.nothing()


async def a_refused_room_is_told(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="secret")
    await client.do("broadcast", "r", message="x", tag="a")
    connection = await server.hello()
    await connection.refuse(await connection.receive("join"), "forbidden")
    notes = [await client.next("r", "failed", code="forbidden") for _ in range(2)]
    assert {note.get("tag") for note in notes} == {None, "a"}
    connection.cut()
    connection = await back(server, client)
    await connection.nothing()


SCENARIOS = {
    name: function
    for name, function in vars(sys.modules[__name__]).items()
    if inspect.iscoroutinefunction(function) and name not in {"start", "back"}
}
