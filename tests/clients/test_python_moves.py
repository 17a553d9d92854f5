"""The Python client's watches when the rights of their user change."""

import pytest

from tests.clients.scripted_server import ScriptedServer, change_event
from tests.clients.test_python_client import open_client


@pytest.fixture
async def server():
    async with ScriptedServer() as server:
        yield server


async def open_watch(db, connection, **options):
    watch = db.watch("posts", transitions=True, **options)
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    return await watch.ready(), request


async def test_event_has_the_scope_that_belongs_to_its_cursor(server):
    db, connection = await open_client(server)
    watch, request = await open_watch(db, connection)
    await connection.send(change_event(request, "created", "1", "c1"))
    await connection.send_moved(request, ("2", {}), left=("1",), cursor="c2", scope="t")
    await connection.send(change_event(request, "created", "3", "c3"))
    # all have arrived before the first one is read
    await connection.reply_subscribed(await _update(watch, connection), cursor="c3", scope="u")
    events = [await anext(watch) for _ in range(4)]
    positions = [(event.event, event.id, event.cursor, event.scope) for event in events]
    assert positions == [
        ("created", "1", "c1", "s"),
        ("left", "1", None, None),
        ("entered", "2", None, None),
        ("created", "3", "c3", "t"),
    ]
    await db.close()


async def _update(watch, connection):
    watch._subscription.update({"fields": ["title"]})
    return await connection.receive("subscribe")


async def test_move_that_fills_the_buffer_is_complete(server):
    db, connection = await open_client(server)
    watch, request = await open_watch(db, connection, buffer=2)
    entered = [(str(n), {"n": n}) for n in range(5)]
    await connection.send_moved(request, *entered, cursor="c1", scope="t")
    await connection.receive("unsubscribe")
    await connection.send(change_event(request, "created", "9", "c2"))
    assert [(await anext(watch)).id for _ in range(5)] == ["0", "1", "2", "3", "4"]
    request = await connection.receive("subscribe")
    assert (request["since"], request["scope"]) == ("c1", "t")
    await connection.reply_subscribed(request, cursor="c1", scope="t", resumed=True)
    await connection.send(change_event(request, "created", "9", "c2"))
    assert (await anext(watch)).id == "9"
    await db.close()


async def test_move_that_a_paused_watch_misses_is_a_resync(server):
    db, connection = await open_client(server)
    watch, request = await open_watch(db, connection, buffer=1)
    await connection.send(change_event(request, "created", "1", "c1"))
    await connection.receive("unsubscribe")
    # sent before the server received the request
    await connection.send_moved(request, ("2", {}), cursor="c2", scope="t")
    assert (await anext(watch)).id == "1"
    request = await connection.receive("subscribe")
    assert (request["since"], request["scope"]) == ("c1", "s")
    resync = {"resumed": False, "resync": {"reason": "scope_changed"}}
    await connection.reply_subscribed(request, cursor="c2", scope="t", **resync)
    event = await anext(watch)
    assert (event.event, event.reason) == ("resync", "scope_changed")
    await db.close()


async def test_document_of_a_move_that_is_too_large_is_flagged(server):
    db, connection = await open_client(server)
    watch, request = await open_watch(db, connection)
    documents = [{"id": "1", "truncated": True}, {"id": "2", "error": True}]
    frame = {"type": "moved", "subscription": request["subscription"], "left": []}
    position = {"cursor": "c1", "scope": "t", "more": False}
    await connection.send({**frame, "entered": documents, **position})
    first, second = [await anext(watch) for _ in range(2)]
    assert (first.data, first.truncated, first.error) == ({}, True, False)
    assert (second.data, second.truncated, second.error) == ({}, False, True)
    await db.close()
