"""Live lists of documents."""

from __future__ import annotations

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import accept_reconnect, start_client
from tests.clients.scripted_server import ScriptedServer, change_event


async def live_list_follows_changes(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    options = {"filters": {"open": True}, "order": "-n"}
    await client.do("live", "l", collection="posts", options=options)
    await client.expect("l", "documents", documents=[])
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    assert request["transitions"] is True
    assert request["snapshot"] == {"order": "-n"}
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("2", {"n": 9}), ("1", {"n": 5}), cursor="c0")
    await client.expect("l", "documents", documents=[["2", {"n": 9}], ["1", {"n": 5}]])
    await client.expect("l", "ready")
    await connection.send(change_event(request, "created", "3", "c1", n=7))
    await client.expect(
        "l", "documents", documents=[["2", {"n": 9}], ["3", {"n": 7}], ["1", {"n": 5}]]
    )
    await connection.send(change_event(request, "updated", "1", "c2", n=8))
    await client.expect(
        "l", "documents", documents=[["2", {"n": 9}], ["1", {"n": 8}], ["3", {"n": 7}]]
    )
    await connection.send(change_event(request, "left", "2", "c3"))
    await client.expect("l", "documents", documents=[["1", {"n": 8}], ["3", {"n": 7}]])
    await connection.send(
        change_event(request, "entered", "10", "c4", n=7)
    )  # equal values are ordered by id, as numbers
    await client.expect(
        "l", "documents", documents=[["1", {"n": 8}], ["3", {"n": 7}], ["10", {"n": 7}]]
    )
    await connection.send(change_event(request, "deleted", "1", "c5", n=8))
    await client.expect("l", "documents", documents=[["3", {"n": 7}], ["10", {"n": 7}]])


async def live_list_keeps_documents_until_new_snapshot_is_complete(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts", options={"order": "n"})
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
    connection.abort()
    connection = await accept_reconnect(server, client)
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c8", scope="s", **resync)
    await connection.send_snapshot(request, ("1", {"n": 1}), ("3", {"n": 3}), cursor="c8")
    await client.expect_nothing("l")


async def live_list_with_limit_shows_the_first_documents(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts", options={"order": "-n", "limit": 2})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    assert request["snapshot"] == {"order": "-n", "limit": 2}
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    snapshot = (("9", {"n": 9}), ("8", {"n": 8}))
    await connection.send_snapshot(request, *snapshot, cursor="c0", truncated=True)
    await client.wait_for("l", "documents", documents=[["9", {"n": 9}], ["8", {"n": 8}]])
    await client.expect("l", "ready")
    await connection.send(change_event(request, "created", "10", "c1", n=10))
    await client.expect("l", "documents", documents=[["10", {"n": 10}], ["9", {"n": 9}]])
    await connection.send(change_event(request, "deleted", "10", "c2", n=10))
    await client.expect("l", "documents", documents=[["9", {"n": 9}], ["8", {"n": 8}]])
    # 9 moves behind documents that the client does not know: it requests them
    await connection.send(change_event(request, "updated", "9", "c3", n=1))
    await client.expect("l", "documents", documents=[["8", {"n": 8}]])
    request = await connection.receive("subscribe")
    assert "since" not in request
    await connection.reply_subscribed(request, cursor="c3", scope="s")
    snapshot = (("8", {"n": 8}), ("7", {"n": 7}))
    await connection.send_snapshot(request, *snapshot, cursor="c3", truncated=True)
    await client.expect("l", "documents", documents=[["8", {"n": 8}], ["7", {"n": 7}]])


async def live_list_with_limit_keeps_a_bounded_number_of_documents(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts", options={"order": "-n", "limit": 1})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, cursor="c0")
    await client.wait_for("l", "ready")
    for n in range(1, 6):
        await connection.send(change_event(request, "created", str(n), f"c{n}", n=n))
        await client.expect("l", "documents", documents=[[str(n), {"n": n}]])
    for n in (5, 4):
        await connection.send(change_event(request, "deleted", str(n), f"d{n}", n=n))
        await client.expect("l", "documents", documents=[[str(n - 1), {"n": n - 1}]])
    await connection.receive_nothing()
    # 2 and 1 were dropped when there were four: the client requests them
    await connection.send(change_event(request, "deleted", "3", "d3", n=3))
    await client.expect("l", "documents", documents=[])
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="d3", scope="s")
    await connection.send_snapshot(request, ("2", {"n": 2}), cursor="d3", truncated=True)
    await client.expect("l", "documents", documents=[["2", {"n": 2}]])


async def live_list_with_limit_is_refilled_after_reconnect(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts", options={"order": "n", "limit": 1})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {"n": 1}), cursor="c0", truncated=True)
    await client.wait_for("l", "ready")
    await connection.send(change_event(request, "left", "1", "c1"))
    await client.expect("l", "documents", documents=[])
    connection.abort()
    connection = await accept_reconnect(server, client)
    request = await connection.receive("subscribe")
    if "since" in request:
        await connection.reply_subscribed(request, cursor="c1", scope="s", resumed=True)
        request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c1", scope="s")
    await connection.send_snapshot(request, ("2", {"n": 2}), cursor="c1", truncated=True)
    await client.expect("l", "documents", documents=[["2", {"n": 2}]])


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
    await client.do("live", "l", collection="posts", options={"order": "n"})
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


async def live_list_can_be_ordered_by_id(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts", options={"order": "-id"})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("10", {}), ("9", {}), cursor="c0")
    await client.wait_for("l", "documents", documents=[["10", {}], ["9", {}]])


async def live_list_orders_decimals_as_numbers(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts", options={"order": "n"})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    data = {"1": "10.50", "2": "9.75", "3": None, "4": "-1.00"}
    await connection.send_snapshot(
        request, *((id, {"n": n}) for id, n in data.items()), cursor="c0"
    )
    expected = [[id, {"n": data[id]}] for id in ("3", "4", "2", "1")]
    await client.wait_for("l", "documents", documents=expected)
