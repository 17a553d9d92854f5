"""Lists of all documents that match, without an order or a limit.

A client must:

- Request them as a snapshot, and follow them by events. They keep the order of the snapshot, and
  new documents are at its end.
- Show the result of a frame with several events once.
- After a resumption, apply the missed events; after a new snapshot, show exactly its documents. A
  document with equal data stays the same object.
"""

from __future__ import annotations

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import (
    accept_reconnect,
    expect_shown,
    resubscribe,
    start_client,
    start_list,
)
from tests.clients.scripted_server import ScriptedServer, change_event


async def live_list_follows_changes(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    options = {"filters": {"open": True}, "fields": ["n"]}
    await client.do("live", "l", collection="posts", options=options)
    await client.expect("l", "documents", documents=[])
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    assert (request["transitions"], request["snapshot"]) == (True, True)
    assert "window" not in request
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("2", {"n": 9}), ("1", {"n": 5}), cursor="c0")
    await client.expect("l", "documents", documents=[["2", {"n": 9}], ["1", {"n": 5}]])
    await client.expect("l", "ready")
    await connection.send(change_event(request, "created", "3", "c1", n=7))
    documents = [["2", {"n": 9}], ["1", {"n": 5}], ["3", {"n": 7}]]
    await client.expect("l", "documents", documents=documents)
    await connection.send(change_event(request, "updated", "1", "c2", n=8))
    documents[1][1] = {"n": 8}
    await client.expect("l", "documents", documents=documents, kept=["2", "3"])
    await connection.send(change_event(request, "left", "2", "c3"))
    await client.expect("l", "documents", documents=[["1", {"n": 8}], ["3", {"n": 7}]])
    await connection.send(change_event(request, "entered", "10", "c4", n=7))
    documents = [["1", {"n": 8}], ["3", {"n": 7}], ["10", {"n": 7}]]
    await client.expect("l", "documents", documents=documents)
    await connection.send(change_event(request, "deleted", "1", "c5", n=8))
    await client.expect("l", "documents", documents=[["3", {"n": 7}], ["10", {"n": 7}]])
    # left and entered again: at the end
    await connection.send(change_event(request, "left", "3", "c6"))
    await client.expect("l", "documents", documents=[["10", {"n": 7}]])
    await connection.send(change_event(request, "entered", "3", "c7", n=7))
    await client.expect("l", "documents", documents=[["10", {"n": 7}], ["3", {"n": 7}]])


async def list_of_a_collection_without_transitions(server: ScriptedServer, client: Driver) -> None:
    """The server does not know the values before a change, if it does not track the collection."""
    await start_client(server, client)
    await client.do("live", "l", collection="posts", options={"transitions": False})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    assert not request.get("transitions")
    assert request["snapshot"] is True


async def list_that_the_server_has_cut_off_has_more_documents(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts")
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {"n": 1}), cursor="c0", truncated=True)
    await client.expect("l", "documents", documents=[], has_more=False, next=None)
    documents = [["1", {"n": 1}]]
    await client.expect("l", "documents", documents=documents, has_more=True, next=None)


async def live_list_keeps_documents_until_new_snapshot_is_complete(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts")
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {"n": 1}), ("2", {"n": 2}), cursor="c0")
    await client.wait_for("l", "documents", documents=[["1", {"n": 1}], ["2", {"n": 2}]])
    await client.expect("l", "ready")
    connection.abort()
    connection = await accept_reconnect(server, client)
    request = await connection.receive("subscribe")
    resync = {"resumed": False, "resync": {"reason": "retention"}}
    await connection.reply_subscribed(request, cursor="c7", scope="s", **resync)
    await connection.send_snapshot(request, ("1", {"n": 1}), more=True, cursor="c7")
    await client.expect_nothing("l")  # the old documents stay until the snapshot is complete
    await connection.send_snapshot(request, ("3", {"n": 3}), cursor="c7")
    await client.expect("l", "documents", documents=[["1", {"n": 1}], ["3", {"n": 3}]])
    # if nothing has changed, nothing is reported
    connection, request = await resubscribe(connection, server, client)
    await connection.reply_subscribed(request, cursor="c8", scope="s", **resync)
    await connection.send_snapshot(request, ("1", {"n": 1}), ("3", {"n": 3}), cursor="c8")
    await client.expect_nothing("l")


async def live_list_is_emptied_when_subscription_is_refused(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts")
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {"n": 1}), cursor="c0")
    await client.wait_for("l", "ready")
    await connection.close(4201)
    connection = await accept_reconnect(server, client)
    await connection.reply_error(await connection.receive("subscribe"), "unknown_collection")
    await client.expect("l", "error", code="unknown_collection")
    await client.expect("l", "documents", documents=[])


async def live_list_shows_truncated_documents_without_data(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts")
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    documents = [{"id": "1", "data": {"n": 1}}, {"id": "2", "truncated": True}]
    name = {"type": "snapshot", "subscription": request["subscription"]}
    await connection.send({**name, "documents": documents, "cursor": "c0", "more": False})
    await client.wait_for("l", "documents", documents=[["1", {"n": 1}], ["2", {}]])
    await client.expect("l", "ready")
    event = change_event(request, "updated", "1", "c1")
    await connection.send({**event, "document": {"id": "1"}, "truncated": True})
    await client.wait_for("l", "documents", documents=[["1", {}], ["2", {}]])
    await connection.receive_nothing()


async def events_of_one_frame_are_shown_at_once(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_list(server, client)
    events = [
        change_event(request, "deleted", "1", "c1", n=1),
        change_event(request, "deleted", "2", "c2", n=2),
        change_event(request, "created", "4", "c3", n=4),
        change_event(request, "entered", "2", "c4", n=2),
    ]
    await connection.send({"type": "events", "events": events})
    documents = [[str(n), {"n": n}] for n in (3, 4, 2)]
    await client.expect("l", "documents", documents=documents, kept=["3", "2"])


async def updated_list_is_replaced_at_once(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_list(server, client)
    await client.do("update", "l", options={"filters": {"n__gt": 1}})
    second = await connection.receive("subscribe")
    # sent before the server received the new request
    await connection.send(change_event(request, "created", "5", "c1", n=5))
    await expect_shown(client, 1, 2, 3, 5)
    await connection.reply_subscribed(second, cursor="c1", scope="t")
    await connection.send_snapshot(second, ("6", {"n": 6}), cursor="c1", more=True)
    await connection.send_snapshot(second, ("5", {"n": 5}), cursor="c1")
    documents = [["6", {"n": 6}], ["5", {"n": 5}]]
    await client.expect("l", "documents", documents=documents, kept=["5"])


async def list_after_missed_events_equals_a_fresh_one(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_list(server, client)
    connection, request = await resubscribe(connection, server, client)
    assert request["since"] == "c0"
    await connection.reply_subscribed(request, cursor="c0", scope="s", resumed=True)
    events = [
        change_event(request, "deleted", "3", "c1", n=3),
        change_event(request, "updated", "1", "c2", n=4),
        change_event(request, "left", "2", "c3"),
        change_event(request, "entered", "4", "c4", n=5),
    ]
    for event in events:
        event["replayed"] = True
    await connection.send({"type": "events", "events": events})
    await client.expect("l", "documents", documents=[["1", {"n": 4}], ["4", {"n": 5}]])
