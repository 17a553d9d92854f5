"""Promise 4: a list with an order, a limit or a page is the server's window.

A client must:

- Apply a frame to the list as it is: first remove, then insert at the given indexes. It sorts and
  compares nothing, but a document that is inserted with equal data stays the same object.
- Apply a frame in several parts when the last one has arrived, and drop the parts when a frame
  with ``reset`` comes.
- Keep the list until the first complete frame after ``subscribed``.
- Continue after a loss only if the list was complete: not with a part of a frame, nor before the
  first frame after ``subscribed``.
- Keep the options and the list if an update is refused.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import (
    accept_reconnect,
    accept_window,
    expect_shown,
    expect_unchanged,
    resubscribe,
    send_marker,
    start_client,
    start_window,
)
from tests.clients.scripted_server import ScriptedServer

BOB = {"id": "8", "name": "bob"}


async def window_is_requested_with_order_limit_and_page(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    for name, options in (
        ("a", {"order": ["-n", "title"], "limit": 5, "filters": {"open": True}}),
        ("b", {"order": "-n,title", "fields": ["n"]}),
        ("c", {"limit": 5, "document": "7"}),
        ("d", {"after": "p1"}),
    ):
        await client.do("live", name, collection="posts", options=options)
    connection = await server.accept_authenticated()
    requests = [await connection.receive("subscribe") for _ in "abcd"]
    windows = [
        {key: value for key, value in request["window"].items() if value is not None}
        for request in requests
    ]
    assert windows == [
        {"order": ["-n", "title"], "limit": 5},
        {"order": "-n,title"},
        {"limit": 5},
        {"after": "p1"},
    ]
    assert requests[0]["filters"] == {"open": True}
    assert requests[1]["fields"] == ["n"]
    assert requests[2]["document"] == "7"
    for request in requests:
        assert not {"snapshot", "transitions", "events", "changed", "since"} & set(request)


async def window_shows_documents_in_the_order_of_the_server(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_window(server, client, 1, 10, 2)
    # each index is that in the list so far
    await connection.send_window(
        request, (0, "7", {"n": 7}), (2, "5", {"n": 5}), remove=("10",), cursor="c1"
    )
    await expect_shown(client, 7, 1, 5, 2)
    await connection.send_window(
        request, (0, "2", {"n": 2}), (4, "9", {"n": 9}), remove=("2", "404"), cursor="c2"
    )
    await expect_shown(client, 2, 7, 1, 5, 9)


async def document_of_a_window_that_changes_is_replaced(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_window(server, client, 1, 2, 3)
    await connection.send_window(request, (1, "2", {"n": 2.5}), remove=("2",), cursor="c1")
    documents = [["1", {"n": 1}], ["2", {"n": 2.5}], ["3", {"n": 3}]]
    await client.expect("l", "documents", documents=documents, kept=["1", "3"])


async def document_inserted_with_equal_data_stays_the_same(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_window(server, client, 1, 2, 3)
    await connection.send_window(request, (1, "2", {"n": 2}), remove=("2",), cursor="c1")
    await expect_unchanged(connection, client, "l")
    await connection.send_window(request, (0, "3", {"n": 3}), remove=("3",), cursor="c2")
    documents = [["3", {"n": 3}], ["1", {"n": 1}], ["2", {"n": 2}]]
    await client.expect("l", "documents", documents=documents, kept=["3", "1", "2"])
    inserts = [(index, str(n), {"n": n}) for index, n in enumerate((3, 4, 2))]
    await connection.send_window(request, *inserts, reset=True, cursor="c3")
    documents = [["3", {"n": 3}], ["4", {"n": 4}], ["2", {"n": 2}]]
    await client.expect("l", "documents", documents=documents, kept=["3", "2"])


async def window_in_parts_is_shown_when_it_is_complete(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_window(server, client, 1, 2, 3)
    await connection.send_window(request, remove=("1",))
    await connection.send_window(request, (0, "5", {"n": 5}), remove=("3",))
    await connection.send_window(request, (2, "6", {"n": 6}))
    await expect_unchanged(connection, client, "l")
    await connection.send_window(request, (0, "7", {"n": 7}), cursor="c1")
    await expect_shown(client, 7, 5, 2, 6)
    # all parts are those of one frame
    await connection.send_window(request, (0, "1", {"n": 1}), reset=True)
    await connection.send_window(request, (1, "2", {"n": 2}), cursor="c2")
    await expect_shown(client, 1, 2)


async def reset_drops_the_parts_before_it(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_window(server, client, 1, 2)
    await connection.send_window(request, (0, "5", {"n": 5}), remove=("1",))
    await connection.send_window(request, (0, "6", {"n": 6}), reset=True)
    await connection.send_window(request, (0, "7", {"n": 7}), reset=True)
    await connection.send_window(request, (1, "8", {"n": 8}), cursor="c1")
    await expect_shown(client, 7, 8)


async def window_continues_from_its_last_frame(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_window(server, client, 1, 2)
    await connection.send_window(request, (2, "3", {"n": 3}), cursor="c1", scope="t")
    await expect_shown(client, 1, 2, 3)
    await connection.send_window(request, remove=("1",), cursor="c2")
    await expect_shown(client, 2, 3)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c2", "t")
    assert request["window"]["limit"] == 3
    await connection.reply_subscribed(request, scope="t", resumed=True)
    await send_marker(connection, client)
    # lost again before it is known whether the list is still right
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c2", "t")
    await connection.reply_subscribed(request, scope="t", resumed=True)
    await connection.send_cursor(request, "c5")
    await connection.send_cursor(request, "c6")
    await expect_unchanged(connection, client, "l")
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c6", "t")


async def window_that_changed_meanwhile_is_replaced(server: ScriptedServer, client: Driver) -> None:
    connection, _ = await start_window(server, client, 1, 2, 3)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c0", "s")
    await connection.reply_subscribed(request, scope="s", resumed=True)
    await connection.send_window(request, (0, "2", {"n": 2}), reset=True)
    await expect_unchanged(
        connection, client, "l"
    )  # the old documents stay until the window is complete
    await connection.send_window(request, (1, "4", {"n": 4}), cursor="c7")
    documents = [["2", {"n": 2}], ["4", {"n": 4}]]
    await client.expect("l", "documents", documents=documents, kept=["2"])
    # if nothing has changed, nothing is reported
    connection, request = await resubscribe(connection, server, client)
    assert request["since"] == "c7"
    await accept_window(connection, request, 2, 4, cursor="c8", resumed=True)
    await expect_unchanged(connection, client, "l")


async def window_that_cannot_be_resumed_is_replaced(server: ScriptedServer, client: Driver) -> None:
    connection, _ = await start_window(server, client, 1, 2)
    connection, request = await resubscribe(connection, server, client)
    resync = {"resumed": False, "resync": {"reason": "scope_changed"}}
    await connection.reply_subscribed(request, scope="t", **resync)
    await send_marker(connection, client)
    # lost again before the window has come
    connection, request = await resubscribe(connection, server, client)
    assert "since" not in request
    await accept_window(connection, request, 4, cursor="c2", scope="t")
    await expect_shown(client, 4)
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c2", "t")


async def connection_lost_between_parts_loads_the_window_again(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_window(server, client, 1, 2, 3)
    await connection.send_window(request, (0, "0", {"n": 0}), remove=("1", "2"))
    await send_marker(connection, client)
    connection, request = await resubscribe(connection, server, client)
    assert "since" not in request
    await expect_unchanged(connection, client, "l")  # the old documents stay
    await accept_window(connection, request, 3, 4, cursor="c2")
    await expect_shown(client, 3, 4)


async def window_has_more_documents_and_a_next_page(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts", options={"order": "n", "limit": 2})
    await client.expect("l", "documents", documents=[], has_more=False, next=None)
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await accept_window(connection, request, 1, 2, more=True)
    await client.expect("l", "documents", has_more=True, next="p0")
    await client.expect("l", "ready")
    # the next page stays until another one is sent
    await connection.send_window(request, (0, "1", {"n": 0}), remove=("1",), cursor="c1", more=True)
    await client.expect("l", "documents", has_more=True, next="p0")
    fields = {"cursor": "c2", "more": True, "next": "p2"}
    await connection.send_window(request, (1, "3", {"n": 3}), remove=("2",), **fields)
    await client.expect("l", "documents", has_more=True, next="p2")
    # a change of `has_more` alone is shown
    await connection.send_window(request, cursor="c3")
    documents = [["1", {"n": 0}], ["3", {"n": 3}]]
    await client.expect("l", "documents", documents=documents, has_more=False, next=None)
    await connection.send_window(request, cursor="c4", more=True, next="p4")
    await client.expect("l", "documents", documents=documents, has_more=True, next="p4")
    await connection.send_window(request, cursor="c5", more=True)
    await expect_unchanged(connection, client, "l")


async def second_page_is_a_window_after_a_cursor(server: ScriptedServer, client: Driver) -> None:
    connection, _ = await start_window(server, client, 1, 2, 3, more=True)
    await client.do("update", "l", options={"after": "p0"})
    request = await connection.receive("subscribe")
    assert request["window"] == {"order": "n", "limit": 3, "after": "p0"}
    assert "since" not in request
    await expect_unchanged(
        connection, client, "l"
    )  # the old page stays until the new one is complete
    await accept_window(connection, request, 4, 5, cursor="c1")
    await expect_shown(client, 4, 5)
    await client.expect("l", "ready")
    # back to the first page
    await client.do("update", "l", options={"after": None})
    request = await connection.receive("subscribe")
    assert request["window"].get("after") is None
    assert request["window"]["limit"] == 3
    await accept_window(connection, request, 1, 2, 3, cursor="c2", more=True)
    await expect_shown(client, 1, 2, 3)
    await client.expect("l", "ready")


async def more_documents_are_requested_with_a_higher_limit(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_window(server, client, 1, 2, 3, more=True)
    await client.do("more", "l")
    request = await connection.receive("subscribe")
    assert request["window"]["limit"] == 6
    assert "since" not in request
    await connection.reply_subscribed(request, scope="s")
    await expect_unchanged(connection, client, "l")
    # the difference, without `reset`
    fields = {"cursor": "c1", "more": True, "next": "p1"}
    await connection.send_window(request, (3, "4", {"n": 4}), (4, "5", {"n": 5}), **fields)
    documents = [[str(n), {"n": n}] for n in range(1, 6)]
    kept = ["1", "2", "3"]
    await client.expect("l", "documents", documents=documents, kept=kept, next="p1")
    await client.expect("l", "more")
    await client.do("more", "l", n=2)
    await client.do("more", "l")
    for limit in (8, 11):
        request = await connection.receive("subscribe")
        assert request["window"]["limit"] == limit
        await connection.reply_subscribed(request, scope="s")
    await connection.send_window(request, cursor="c2")  # there are no further documents
    await client.expect("l", "documents", documents=documents, has_more=False)
    for _ in range(2):
        await client.expect("l", "more")
    connection, request = await resubscribe(connection, server, client)
    assert (request["window"]["limit"], request["since"]) == (11, "c2")


async def more_documents_without_a_difference_have_arrived(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_window(server, client, 1)
    await client.do("more", "l")
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, scope="s")
    await expect_unchanged(connection, client, "l")
    await connection.send_cursor(request, "c1")
    await client.expect("l", "more")
    connection, request = await resubscribe(connection, server, client)
    assert (request["window"]["limit"], request["since"]) == (6, "c1")


async def more_documents_than_the_server_allows_are_refused(
    server: ScriptedServer, client: Driver
) -> None:
    connection, first = await start_window(server, client, 1, 2, 3, more=True)
    await client.do("more", "l", n=1000)
    await connection.reply_error(await connection.receive("subscribe"), "limit_exceeded")
    await client.wait_for("l", "failed", code="limit_exceeded")
    await connection.send_window(first, remove=("1",), cursor="c1", more=True)
    await client.expect("l", "documents", documents=[["2", {"n": 2}], ["3", {"n": 3}]])
    await client.do("more", "l")
    request = await connection.receive("subscribe")
    assert request["window"]["limit"] == 6


async def connection_lost_after_more_was_accepted_loads_the_window_again(
    server: ScriptedServer, client: Driver
) -> None:
    """The documents are those of the lower limit, so there is nothing to continue from."""
    connection, _ = await start_window(server, client, 1, 2, 3, more=True)
    await client.do("more", "l")
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, scope="s")
    await send_marker(connection, client)
    connection, request = await resubscribe(connection, server, client)
    assert request["window"]["limit"] == 6
    assert "since" not in request
    await accept_window(connection, request, 1, 2, 3, 4, cursor="c1")
    await expect_shown(client, 1, 2, 3, 4)
    await client.expect("l", "more")


async def updated_order_replaces_the_window_at_once(server: ScriptedServer, client: Driver) -> None:
    connection, first = await start_window(server, client, 1, 2)
    await client.do("update", "l", options={"order": "-n", "filters": {"open": True}})
    request = await connection.receive("subscribe")
    assert request["window"] == {"order": "-n", "limit": 3}
    assert request["filters"] == {"open": True}
    # sent before the server received the new request
    await connection.send_window(first, (2, "3", {"n": 3}), cursor="c1")
    await expect_shown(client, 1, 2, 3)
    await connection.reply_subscribed(request, scope="s")
    await expect_unchanged(connection, client, "l")
    await connection.send_window(request, (0, "3", {"n": 3}), reset=True)
    await expect_unchanged(connection, client, "l")
    await connection.send_window(request, (1, "2", {"n": 2}), cursor="c2")
    documents = [["3", {"n": 3}], ["2", {"n": 2}]]
    await client.expect("l", "documents", documents=documents, kept=["3", "2"])
    await client.expect("l", "ready")


async def refused_update_keeps_the_window(server: ScriptedServer, client: Driver) -> None:
    connection, first = await start_window(server, client, 1, 2, more=True)
    await client.do("update", "l", options={"order": "secret"})
    await connection.reply_error(await connection.receive("subscribe"), "bad_request")
    await client.wait_for("l", "failed", code="bad_request")
    await connection.send_window(first, (2, "3", {"n": 3}), cursor="c1", more=True)
    await client.expect("l", "documents", documents=[[str(n), {"n": n}] for n in (1, 2, 3)])
    connection, request = await resubscribe(connection, server, client)
    assert (request["window"]["order"], request["since"]) == ("n", "c1")


async def refused_update_keeps_the_parts_of_a_frame(server: ScriptedServer, client: Driver) -> None:
    connection, first = await start_window(server, client, 1, 2)
    await connection.send_window(first, (0, "0", {"n": 0}), remove=("1",))
    await client.do("update", "l", options={"filters": {"nope": 1}})
    await connection.reply_error(await connection.receive("subscribe"), "invalid_filter")
    await client.wait_for("l", "failed", code="invalid_filter")
    await connection.send_window(first, (2, "3", {"n": 3}), cursor="c1")
    await client.expect("l", "documents", documents=[[str(n), {"n": n}] for n in (0, 2, 3)])


async def window_becomes_a_list_of_all_documents(server: ScriptedServer, client: Driver) -> None:
    connection, _ = await start_window(server, client, 1, 2, more=True)
    await client.do("update", "l", options={"order": None, "limit": None})
    request = await connection.receive("subscribe")
    assert "window" not in request
    assert (request["snapshot"], request["transitions"]) == (True, True)
    await connection.reply_subscribed(request, cursor="c1", scope="s")
    await connection.send_snapshot(request, ("2", {"n": 2}), ("1", {"n": 1}), cursor="c1")
    documents = [["2", {"n": 2}], ["1", {"n": 1}]]
    await client.expect("l", "documents", documents=documents, has_more=False, next=None)
    await client.expect("l", "ready")
    await client.do("update", "l", options={"limit": 1})
    request = await connection.receive("subscribe")
    assert request["window"]["limit"] == 1
    assert "snapshot" not in request
    await accept_window(connection, request, 1, cursor="c2", more=True)
    await expect_shown(client, 1)
    await client.expect("l", "ready")


async def window_of_a_refused_subscription_is_emptied(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_window(server, client, 1, 2, more=True)
    connection, request = await resubscribe(connection, server, client)
    await connection.reply_error(request, "unknown_collection")
    await client.wait_for("l", "error", code="unknown_collection")
    await client.expect("l", "documents", documents=[], has_more=False, next=None)


async def window_that_ends_with_an_error_is_requested_again(
    server: ScriptedServer, client: Driver
) -> None:
    connection, first = await start_window(server, client, 1, 2)
    ended = {"type": "error", "code": "internal_error", "message": "No."}
    await connection.send({**ended, "subscription": first["subscription"]})
    await client.wait_for("l", "error", code="internal_error")
    request = await connection.receive("subscribe")
    await expect_unchanged(connection, client, "l")  # the documents stay
    await accept_window(connection, request, 2, 3, cursor="c3")
    await expect_shown(client, 2, 3)


async def window_of_another_user_is_emptied_and_loaded_again(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_window(server, client, 1, 2, more=True)
    connection.abort()
    connection = await accept_reconnect(server, client, user=BOB)
    await client.expect("l", "documents", documents=[], has_more=False, next=None)
    request = await connection.receive("subscribe")
    assert not {"since", "scope"} & set(request)
    await accept_window(connection, request, 4, cursor="d0", scope="t")
    await expect_shown(client, 4)


async def window_shows_documents_without_data(server: ScriptedServer, client: Driver) -> None:
    """They are too large, or their serializer failed."""
    connection, request = await start_window(server, client, 1)
    insert = [[0, {"id": "4", "truncated": True}], [2, {"id": "5", "error": True}]]
    frame = {"type": "window", "subscription": request["subscription"], "remove": []}
    await connection.send({**frame, "insert": insert, "more": False, "cursor": "c1"})
    await client.expect("l", "documents", documents=[["4", {}], ["1", {"n": 1}], ["5", {}]])
    await connection.send_window(request, (0, "4", {"n": 4}), remove=("4",), cursor="c2")
    await client.expect("l", "documents", documents=[["4", {"n": 4}], ["1", {"n": 1}], ["5", {}]])


async def windows_of_one_frame_are_shown_at_once(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_window(server, client, 1, 2)
    name = {"type": "window", "subscription": request["subscription"], "more": False}
    events: list[dict[str, Any]] = [
        {**name, "remove": ["1"], "insert": [], "cursor": "c1"},
        {**name, "remove": ["2"], "insert": [[0, {"id": "3", "data": {"n": 3}}]], "cursor": "c2"},
        {**name, "remove": [], "insert": [[1, {"id": "2", "data": {"n": 2}}]], "cursor": "c3"},
    ]
    await connection.send({"type": "events", "events": events})
    documents = [["3", {"n": 3}], ["2", {"n": 2}]]
    await client.expect("l", "documents", documents=documents, kept=["2"])
    connection, request = await resubscribe(connection, server, client)
    assert request["since"] == "c3"


async def windows_are_acknowledged_as_events(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_window(server, client, 0)
    for n in range(1, 201):
        await connection.send_window(request, (0, "0", {"n": n}), remove=("0",), cursor=f"c{n}")
    await client.wait_for("l", "documents", documents=[["0", {"n": 200}]])
    async with asyncio.timeout(10):
        while not connection.acks or int(connection.acks[-1][1:]) <= 100:
            await asyncio.sleep(0.02)
    # often enough for an ack window of 256, much less often than there are frames
    assert 2 <= len(connection.acks) <= 20


async def stopped_window_ignores_frames(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_window(server, client, 1, 2)
    await connection.send_window(request, (0, "0", {"n": 0}))
    await client.do("stop", "l")
    ended = await connection.receive("unsubscribe")
    assert ended["subscription"] == request["subscription"]
    await connection.send_window(request, remove=("1",), cursor="c1")
    await expect_unchanged(connection, client, "l")
    await client.do("more", "l")
    await client.expect("l", "failed", code="closed")
    connection.abort()
    connection = await accept_reconnect(server, client)
    await connection.receive_nothing()


async def frame_of_an_unknown_window_is_ignored(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_window(server, client, 1)
    unknown = {"subscription": "posts#99"}
    await connection.send_window(unknown, (0, "4", {"n": 4}), remove=("1",), cursor="c1")
    await connection.send_aggregate(unknown, {"count": 1}, cursor="c1")
    await send_marker(connection, client)
    await expect_unchanged(connection, client, "l")
    await expect_unchanged(connection, client, "errors")
    connection, request = await resubscribe(connection, server, client)
    assert (request["since"], request["scope"]) == ("c0", "s")
