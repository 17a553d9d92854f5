"""Lists of documents that keep themselves up to date."""

from __future__ import annotations

from tests.clients.drivers import Driver
from tests.clients.scenarios.steps import back, start
from tests.clients.scripted_server import Script, change


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
    expected = [[id, {"n": data[id]}] for id in ("3", "4", "2", "1")]
    await client.until("l", "documents", documents=expected)
