"""Promise 10: a count is what the server counts.

A client must:

- Replace the groups that a frame has, remove those that are gone (a ``key``, and ``count`` 0), and
  with ``reset`` all others. Apply a frame in several parts when the last one has arrived.
- Compute ``avg`` from the sum and number of values; without values, it is null.
- Keep the groups until the first complete frame after ``subscribed``.
- Continue after a loss only if the groups were complete.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import (
    accept_reconnect,
    expect_unchanged,
    resubscribe,
    send_marker,
    start_client,
    start_count,
)
from tests.clients.scripted_server import ScriptedServer

BOB = {"id": "8", "name": "bob"}


def group(project: Any, count: int, **values: Any) -> dict[str, Any]:
    return {"key": {"project": project}, "count": count, **values}


async def aggregates_are_requested(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    for name, options in (
        ("a", {}),
        ("b", {"filters": {"open": True}, "group_by": "project", "sum": "hours"}),
        ("c", {"document": "7", "group_by": ["project", "state"], "avg": ["hours", "n"]}),
        ("d", {"min": "n", "max": ["n", "hours"]}),
    ):
        await client.do("count", name, collection="posts", options=options)
    connection = await server.accept_authenticated()
    requests = [await connection.receive("subscribe") for _ in "abcd"]
    aggregates = [
        {key: value for key, value in request["aggregate"].items() if key != "count" and value}
        for request in requests
    ]
    assert aggregates == [
        {},
        {"group_by": ["project"], "sum": ["hours"]},
        {"group_by": ["project", "state"], "avg": ["hours", "n"]},
        {"min": ["n"], "max": ["n", "hours"]},
    ]
    assert requests[1]["filters"] == {"open": True}
    assert requests[2]["document"] == "7"
    unwanted = {"snapshot", "transitions", "window", "fields", "since"}
    for request in requests:
        assert request["aggregate"].get("count", True) is True
        assert not unwanted & set(request)


async def count_follows_changes(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("count", "c", collection="posts")
    await client.expect("c", "groups", value=None, groups=[])
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, scope="s")
    await expect_unchanged(connection, client, "c")
    await connection.send_aggregate(request, {"count": 0}, reset=True, cursor="c0")
    await client.expect("c", "groups", value=0, groups=[{"count": 0}])
    await client.expect("c", "ready")
    await connection.send_aggregate(request, {"count": 17}, cursor="c1")
    await client.expect("c", "groups", value=17, groups=[{"count": 17}])
    # without a key, the group stays
    await connection.send_aggregate(request, {"count": 0}, cursor="c2")
    await client.expect("c", "groups", value=0, groups=[{"count": 0}])


async def groups_are_replaced_added_and_removed(server: ScriptedServer, client: Driver) -> None:
    first = (group("1", 3), group(None, 1), group("2", 2))
    connection, request = await start_count(server, client, *first, group_by="project")
    await connection.send_aggregate(request, group("1", 4), group("3", 1), cursor="c1")
    groups = [group("1", 4), group(None, 1), group("2", 2), group("3", 1)]
    await client.expect("c", "groups", value=8, groups=groups, kept=2)
    await connection.send_aggregate(request, group(None, 0), group("9", 0), cursor="c2")
    del groups[1]
    await client.expect("c", "groups", value=7, groups=groups, kept=3)
    # the sum is the same, and the groups are not
    await connection.send_aggregate(request, group("1", 3), group("2", 3), cursor="c3")
    groups = [group("1", 3), group("2", 3), group("3", 1)]
    await client.expect("c", "groups", value=7, groups=groups, kept=1)


async def count_without_groups_is_known(server: ScriptedServer, client: Driver) -> None:
    """No document matches, so that there is no group either."""
    await start_client(server, client)
    options = {"group_by": "project"}
    await client.do("count", "c", collection="posts", options=options)
    await client.expect("c", "groups", value=None, groups=[])
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, scope="s")
    await connection.send_aggregate(request, reset=True, cursor="c0")
    await client.expect("c", "groups", value=0, groups=[])
    await client.expect("c", "ready")
    await connection.send_aggregate(request, reset=True, cursor="c1")
    await expect_unchanged(connection, client, "c")


async def averages_are_numbers(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    options = {"sum": "hours", "avg": ["hours", "n"], "min": "hours", "max": "n"}
    await client.do("count", "c", collection="posts", options=options)
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, scope="s")
    values = {"sum": {"hours": "40.5"}, "min": {"hours": "-1.50"}, "max": {"n": 8}}
    avg = {"hours": {"sum": "40.5", "n": 3}, "n": {"sum": 10, "n": 4}}
    first = {"count": 5, **values, "avg": avg}
    await connection.send_aggregate(request, first, reset=True, cursor="c0")
    expected = {"count": 5, **values, "avg": {"hours": 13.5, "n": 2.5}}
    await client.wait_for("c", "groups", value=5, groups=[expected])
    nothing = {"sum": {"hours": None}, "min": {"hours": None}, "max": {"n": None}}
    avg = {"hours": {"sum": None, "n": 0}, "n": {"sum": None, "n": 0}}
    await connection.send_aggregate(request, {"count": 2, **nothing, "avg": avg}, cursor="c1")
    expected = {"count": 2, **nothing, "avg": {"hours": None, "n": None}}
    await client.wait_for("c", "groups", value=2, groups=[expected])


async def groups_in_parts_are_shown_when_they_are_complete(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_count(server, client, group("1", 3), group_by="project")
    await connection.send_aggregate(request, group("1", 1), group("2", 2))
    await expect_unchanged(connection, client, "c")
    await connection.send_aggregate(request, group("3", 3), cursor="c1")
    groups = [group("1", 1), group("2", 2), group("3", 3)]
    await client.expect("c", "groups", value=6, groups=groups)
    # a frame with `reset` drops the parts before it
    await connection.send_aggregate(request, group("4", 4))
    await connection.send_aggregate(request, group("1", 1), reset=True)
    await connection.send_aggregate(request, group("5", 5), cursor="c2")
    await client.expect("c", "groups", value=6, groups=[group("1", 1), group("5", 5)], kept=1)


async def connection_lost_between_parts_counts_again(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_count(server, client, group("1", 3), group_by="project")
    await connection.send_aggregate(request, group("2", 2))
    await send_marker(connection, client)
    connection, request = await resubscribe(connection, server, client)
    assert "since" not in request
    await expect_unchanged(connection, client, "c")
    await connection.reply_subscribed(request, scope="s")
    await connection.send_aggregate(request, group("3", 3), reset=True, cursor="c1")
    await client.expect("c", "groups", value=3, groups=[group("3", 3)])


async def count_continues_from_its_last_frame(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_count(server, client, {"count": 3})
    await connection.send_aggregate(request, {"count": 4}, cursor="c1", scope="t")
    await client.expect("c", "groups", value=4)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c1", "t")
    await connection.reply_subscribed(request, scope="t", resumed=True)
    await connection.send_cursor(request, "c4")
    await expect_unchanged(connection, client, "c")
    # or it has changed meanwhile
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c4", "t")
    await connection.reply_subscribed(request, scope="t", resumed=True)
    await connection.send_aggregate(request, {"count": 9}, reset=True, cursor="c9")
    await client.expect("c", "groups", value=9)
    # or not
    connection, request = await resubscribe(connection, server, client)
    await connection.reply_subscribed(request, scope="t", resumed=True)
    await connection.send_aggregate(request, {"count": 9}, reset=True, cursor="c10")
    await expect_unchanged(connection, client, "c")


async def updated_count_is_replaced_at_once(server: ScriptedServer, client: Driver) -> None:
    connection, first = await start_count(server, client, {"count": 3}, filters={"open": True})
    await client.do("update", "c", options={"group_by": "project"})
    request = await connection.receive("subscribe")
    assert request["aggregate"]["group_by"] == ["project"]
    assert request["filters"] == {"open": True}
    assert "since" not in request
    # sent before the server received the new request
    await connection.send_aggregate(first, {"count": 4}, cursor="c1")
    await client.expect("c", "groups", value=4)
    await connection.reply_subscribed(request, scope="s")
    await expect_unchanged(connection, client, "c")
    await connection.send_aggregate(request, group("1", 4), reset=True, cursor="c2")
    await client.expect("c", "groups", value=4, groups=[group("1", 4)])
    await client.expect("c", "ready")


async def refused_update_keeps_the_count(server: ScriptedServer, client: Driver) -> None:
    connection, first = await start_count(server, client, {"count": 3})
    await client.do("update", "c", options={"sum": "secret"})
    await connection.reply_error(await connection.receive("subscribe"), "bad_request")
    await client.wait_for("c", "failed", code="bad_request")
    await connection.send_aggregate(first, {"count": 4}, cursor="c1")
    await client.expect("c", "groups", value=4)
    connection, request = await resubscribe(connection, server, client)
    assert not request["aggregate"].get("sum")
    assert request["since"] == "c1"


async def refused_count_is_unknown(server: ScriptedServer, client: Driver) -> None:
    connection, _ = await start_count(server, client, {"count": 3})
    connection, request = await resubscribe(connection, server, client)
    await connection.reply_error(request, "limit_exceeded")
    await client.wait_for("c", "error", code="limit_exceeded")
    await client.expect("c", "groups", value=None, groups=[])


async def count_of_another_user_is_unknown_until_it_is_counted(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_count(server, client, {"count": 3})
    connection.abort()
    connection = await accept_reconnect(server, client, user=BOB)
    await client.expect("c", "groups", value=None, groups=[])
    request = await connection.receive("subscribe")
    assert not {"since", "scope"} & set(request)
    await connection.reply_subscribed(request, scope="t")
    await connection.send_aggregate(request, {"count": 5}, reset=True, cursor="d0")
    await client.expect("c", "groups", value=5)


async def counts_of_one_frame_are_shown_at_once(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_count(server, client, {"count": 3})
    name = {"type": "aggregate", "subscription": request["subscription"]}
    events = [{**name, "groups": [{"count": n}], "cursor": f"c{n}"} for n in (4, 5, 6)]
    await connection.send({"type": "events", "events": events})
    await client.expect("c", "groups", value=6)
    for n in range(100):
        await connection.send_aggregate(request, {"count": n}, cursor=f"c{n}")
    await client.wait_for("c", "groups", value=99)
    async with asyncio.timeout(10):
        while not connection.acks:
            await asyncio.sleep(0.02)
    await client.do("stop", "c")
    await connection.receive("unsubscribe")
    await connection.send_aggregate(request, {"count": 7}, cursor="c7")
    await expect_unchanged(connection, client, "c")
