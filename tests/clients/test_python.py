"""What only the Python client has: iterators, bounded buffers, a context manager."""

import asyncio
import gc
import logging

import pytest

from django_cocobase_realtime.client import Realtime, RealtimeError
from django_cocobase_realtime.client.backoff import Backoff
from django_cocobase_realtime.wire.codes import CloseCode, Retry
from tests.clients.script import Script, change, said


@pytest.fixture
async def script():
    async with Script() as server:
        yield server


async def opened(server, **options):
    db = Realtime(server.url, token="key", proxy=None, **options)
    db.start()
    connection = await server.hello()
    await db.connected()
    return db, connection


async def test_events_as_objects(script):
    db, connection = await opened(script)
    watch = db.watch("posts", fields=("title",), filters={"status": "published"}, views__gte=3)
    request = await connection.receive("subscribe")
    assert request["filters"] == {"status": "published", "views__gte": 3}
    assert request["fields"] == ["title"]
    await connection.subscribed(request, cursor="c0", scope="s")
    assert await watch.ready() is watch
    assert (watch.cursor, watch.scope) == ("c0", "s")
    frame = change(request, "updated", "1", "c1", title="Hello")
    await connection.send({**frame, "changed": ["title"], "transaction": "t"})
    event = await anext(watch)
    assert (event.event, event.collection, event.id) == ("updated", "posts", "1")
    assert (event.data, event.changed) == ({"title": "Hello"}, ("title",))
    assert (event.cursor, event.transaction, event.replayed) == ("c1", "t", False)
    assert db.user == {"id": "7", "name": "ada"}
    await db.close()
    assert [event async for event in watch] == []


async def test_a_place_that_was_kept(script):
    db, connection = await opened(script)
    db.watch("posts", since="c7", scope="s")
    request = await connection.receive("subscribe")
    assert (request["since"], request["scope"]) == ("c7", "s")
    await db.close()


async def test_turned_away(script):
    async def refuse():
        connection = await script.accept()
        await connection.receive("auth")
        await connection.close(4500)

    task = asyncio.create_task(refuse())
    with pytest.raises(RealtimeError) as raised:
        async with Realtime(script.url, token="bad", proxy=None):
            pass
    assert raised.value.code == 4500
    assert "4500" in str(raised.value)
    await task


async def test_a_refusal_ends_the_iteration(script):
    db, connection = await opened(script)
    watch = db.watch("secrets")
    await connection.refuse(await connection.receive("subscribe"), "unknown_collection")
    with pytest.raises(RealtimeError) as raised:
        await anext(watch)
    assert raised.value.code == "unknown_collection"
    await db.close()


async def test_a_slow_reader_bounds_what_is_kept(script):
    db, connection = await opened(script)
    watch = db.watch("posts", buffer=10)
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    for n in range(1, 101):
        await connection.send(change(request, "created", str(n), f"c{n}"))
    await connection.receive("unsubscribe")
    assert len(watch._buffer) == 10
    assert [(await anext(watch)).id for _ in range(10)] == [str(n) for n in range(1, 11)]
    # what came after the tenth is asked for again, from there
    request = await connection.receive("subscribe")
    assert (request["since"], request["scope"]) == ("c10", "s")
    await connection.subscribed(request, cursor="c10", scope="s", resumed=True)
    await connection.send(change(request, "created", "11", "c11"))
    assert (await anext(watch)).id == "11"
    await db.close()


async def test_whoever_breaks_off_is_unsubscribed(script):
    db, connection = await opened(script)

    async def first():
        async for event in db.watch("posts"):
            return event.id
        raise AssertionError

    task = asyncio.create_task(first())
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0")
    await connection.send(change(request, "created", "1", "c1"))
    assert await task == "1"
    del task
    gc.collect()
    await connection.receive("unsubscribe")
    async with db.watch("posts"):
        await connection.receive("subscribe")
    await connection.receive("unsubscribe")
    await db.close()


async def test_a_room_is_read_by_iteration(script):
    db, connection = await opened(script)
    room = db.room("chat")
    assert db.room("chat") is room
    join = await connection.receive("join")
    await connection.answer(join, "joined", room="chat", participants=1, members=[])
    await room.ready()
    messages = room.messages()
    await connection.send(said("chat", {"text": "hi"}, cursor="m1"))
    message = await anext(messages)
    assert message.message == {"text": "hi"}
    assert message.sender["name"] == "bob"
    task = asyncio.create_task(room.broadcast("x", echo=False))
    request = await connection.receive("broadcast")
    assert request["echo"] is False
    await connection.answer(request, "sent", room="chat")
    await task
    room.leave()
    assert [message async for message in messages] == []
    await db.close()


async def test_live_changes(script, caplog):
    db, connection = await opened(script)
    posts = db.live("posts", order="n")
    posts.subscribe(lambda documents: 1 / 0)  # a listener's mistake is not the connection's
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    await connection.snapshot(request, ("1", {"n": 1}), cursor="c0")
    await posts.ready()
    changes = posts.changes()
    one = posts.documents[0]
    await connection.send(change(request, "created", "2", "c1", n=0))
    assert [each.id for each in await anext(changes)] == ["2", "1"]
    assert posts.documents[1] is one
    await db.close()
    assert [each async for each in changes] == []
    assert "A listener failed" in caplog.text


async def test_no_server_is_logged_and_tried_again(caplog):
    caplog.set_level(logging.WARNING)
    db = Realtime("http://127.0.0.1:9", proxy=None, random=lambda: 0.01)
    db.start()
    while caplog.text.count("No connection to ws://127.0.0.1:9") < 3:
        await asyncio.sleep(0.01)
    await db.close()


def test_backoff_agrees_with_the_registry_of_codes():
    for code in CloseCode:
        delay = Backoff(lambda: 0.5).next_delay(code, None, 0.0)
        if code.retry is Retry.STOP:
            assert delay is None
        elif code.retry is Retry.AT_ONCE:
            assert delay == 0
    grown = Backoff(lambda: 1.0)
    delays = [grown.next_delay(1006, None, 0.0) for _ in range(12)]
    assert delays[:4] == [0.5, 1, 2, 4]
    assert delays[-1] == 30
    assert grown.next_delay(1006, None, 60.0) == 0.5  # the connection was stable
    assert grown.next_delay(CloseCode.PERMISSIONS_CHANGED, None, 1.0) > 0  # not at once each time


async def test_what_was_dropped_while_it_paused_comes_before_what_follows(script):
    """Frames of before the pause arrive after it: they would hide what was not taken."""
    db, connection = await opened(script)
    watch = db.watch("posts", buffer=2)
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    await watch.ready()
    for n in (1, 2, 3):
        await connection.send(change(request, "created", str(n), f"c{n}"))
    await connection.receive("unsubscribe")
    await asyncio.sleep(0.1)
    assert [(await anext(watch)).id for _ in "ab"] == ["1", "2"]
    again = await connection.receive("subscribe")
    assert again["since"] == "c2"
    await connection.send(change(request, "created", "4", "c4"))  # sent before it was asked for
    await asyncio.sleep(0.1)
    assert watch.cursor == "c2"
    await connection.subscribed(again, cursor="c2", scope="s", resumed=True)
    for n in (3, 4):
        await connection.send({**change(again, "created", str(n), f"c{n}"), "replayed": True})
    assert [(await anext(watch)).id for _ in "ab"] == ["3", "4"]
    await db.close()


async def test_what_is_not_json_is_refused_where_it_is_said(script):
    """Not where it is sent: the client would fall silent."""
    db, connection = await opened(script)
    room = db.room("chat")
    join = await connection.receive("join")
    await connection.answer(join, "joined", room="chat", participants=0, members=[])
    await room.ready()
    watch = db.watch("posts")
    await connection.subscribed(await connection.receive("subscribe"), cursor="c0", scope="s")
    with pytest.raises(TypeError):
        await room.broadcast(object())
    with pytest.raises(TypeError):
        await room.set_state({"at": object()})
    with pytest.raises(TypeError):
        db.room("other", state={"at": object()})
    with pytest.raises(TypeError):
        db.watch("posts", filters={"at": object()})
    with pytest.raises(TypeError):
        await watch.update(filters={"at": object()})
    assert room.state is None
    assert list(db._protocol.rooms) == ["chat"]
    assert len(db._protocol.subscriptions) == 1
    said_now = asyncio.create_task(room.broadcast("still there"))
    await connection.answer(await connection.receive("broadcast"), "sent", room="chat")
    await said_now
    await db.close()
