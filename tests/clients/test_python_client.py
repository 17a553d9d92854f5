"""The Python client's own interface: iterators, bounded buffers, a context manager."""

import asyncio
import gc
import logging

import pytest

from django_cocobase_realtime.client import Realtime, RealtimeError
from django_cocobase_realtime.client.backoff import Backoff
from django_cocobase_realtime.wire.codes import CloseCode, Retry
from tests.clients.scripted_server import ScriptedServer, broadcast_event, change_event


@pytest.fixture
async def server():
    async with ScriptedServer() as server:
        yield server


async def open_client(server, **options):
    db = Realtime(server.url, token="key", proxy=None, **options)
    db.start()
    connection = await server.accept_authenticated()
    await db.connected()
    return db, connection


async def test_watch_yields_events_as_objects(server):
    db, connection = await open_client(server)
    watch = db.watch("posts", fields=("title",), filters={"status": "published"}, views__gte=3)
    request = await connection.receive("subscribe")
    assert request["filters"] == {"status": "published", "views__gte": 3}
    assert request["fields"] == ["title"]
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    assert await watch.ready() is watch
    assert (watch.cursor, watch.scope) == ("c0", "s")
    frame = change_event(request, "updated", "1", "c1", title="Hello")
    await connection.send({**frame, "changed": ["title"], "transaction": "t"})
    event = await anext(watch)
    assert (event.event, event.collection, event.id) == ("updated", "posts", "1")
    assert (event.data, event.changed) == ({"title": "Hello"}, ("title",))
    assert (event.cursor, event.transaction, event.replayed) == ("c1", "t", False)
    assert db.user == {"id": "7", "name": "ada"}
    await db.close()
    assert [event async for event in watch] == []


async def test_watch_resumes_from_given_cursor(server):
    db, connection = await open_client(server)
    db.watch("posts", since="c7", scope="s")
    request = await connection.receive("subscribe")
    assert (request["since"], request["scope"]) == ("c7", "s")
    await db.close()


async def test_context_manager_raises_when_authentication_fails(server):
    async def refuse():
        connection = await server.accept()
        await connection.receive("auth")
        await connection.close(4500)

    task = asyncio.create_task(refuse())
    with pytest.raises(RealtimeError) as raised:
        async with Realtime(server.url, token="bad", proxy=None):
            pass
    assert raised.value.code == 4500
    assert "4500" in str(raised.value)
    await task


async def test_iteration_raises_when_subscription_is_refused(server):
    db, connection = await open_client(server)
    watch = db.watch("secrets")
    await connection.reply_error(await connection.receive("subscribe"), "unknown_collection")
    with pytest.raises(RealtimeError) as raised:
        await anext(watch)
    assert raised.value.code == "unknown_collection"
    await db.close()


async def test_buffer_of_slow_reader_is_bounded_and_resumed(server):
    db, connection = await open_client(server)
    watch = db.watch("posts", buffer=10)
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    for n in range(1, 101):
        await connection.send(change_event(request, "created", str(n), f"c{n}"))
    await connection.receive("unsubscribe")
    assert len(watch._buffer) == 10
    assert [(await anext(watch)).id for _ in range(10)] == [str(n) for n in range(1, 11)]
    # events after the tenth are requested again from its cursor
    request = await connection.receive("subscribe")
    assert (request["since"], request["scope"]) == ("c10", "s")
    await connection.reply_subscribed(request, cursor="c10", scope="s", resumed=True)
    await connection.send(change_event(request, "created", "11", "c11"))
    assert (await anext(watch)).id == "11"
    await db.close()


async def test_watch_is_unsubscribed_when_iteration_ends(server):
    db, connection = await open_client(server)

    async def first():
        async for event in db.watch("posts"):
            return event.id
        raise AssertionError

    task = asyncio.create_task(first())
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0")
    await connection.send(change_event(request, "created", "1", "c1"))
    assert await task == "1"
    del task
    gc.collect()
    await connection.receive("unsubscribe")
    async with db.watch("posts"):
        await connection.receive("subscribe")
    await connection.receive("unsubscribe")
    await db.close()


async def test_room_messages_are_read_by_iteration(server):
    db, connection = await open_client(server)
    room = db.room("chat")
    assert db.room("chat") is room
    join = await connection.receive("join")
    await connection.reply(join, "joined", room="chat", participants=1, members=[])
    await room.ready()
    messages = room.messages()
    await connection.send(broadcast_event("chat", {"text": "hi"}, cursor="m1"))
    message = await anext(messages)
    assert message.message == {"text": "hi"}
    assert message.sender["name"] == "bob"
    task = asyncio.create_task(room.broadcast("x", echo=False))
    request = await connection.receive("broadcast")
    assert request["echo"] is False
    await connection.reply(request, "sent", room="chat")
    await task
    room.leave()  # the other of two users keeps it
    await connection.receive_nothing()
    room.leave()
    await connection.receive("leave")
    assert [message async for message in messages] == []
    await db.close()


async def test_live_changes_are_read_by_iteration(server, caplog):
    db, connection = await open_client(server)
    posts = db.live("posts")
    posts.subscribe(lambda documents: 1 / 0)  # a failing listener does not affect the connection
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {"n": 1}), cursor="c0")
    await posts.ready()
    changes = posts.changes()
    one = posts.documents[0]
    await connection.send(change_event(request, "created", "2", "c1", n=0))
    assert [document.id for document in await anext(changes)] == ["1", "2"]
    assert posts.documents[0] is one
    await db.close()
    assert [document async for document in changes] == []
    assert "A listener failed" in caplog.text


async def test_refused_connection_is_logged_and_retried(caplog):
    caplog.set_level(logging.WARNING)
    db = Realtime("http://127.0.0.1:9", proxy=None, random=lambda: 0.01)
    db.start()
    while caplog.text.count("No connection to ws://127.0.0.1:9") < 3:
        await asyncio.sleep(0.01)
    await db.close()


def test_backoff_follows_the_retry_rule_of_each_close_code():
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


async def test_events_dropped_while_paused_come_before_later_events(server):
    """Frames sent before the pause arrive after it. Accepting them would skip dropped events."""
    db, connection = await open_client(server)
    watch = db.watch("posts", buffer=2)
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await watch.ready()
    for n in (1, 2, 3):
        await connection.send(change_event(request, "created", str(n), f"c{n}"))
    await connection.receive("unsubscribe")
    await asyncio.sleep(0.1)
    assert [(await anext(watch)).id for _ in "ab"] == ["1", "2"]
    again = await connection.receive("subscribe")
    assert again["since"] == "c2"
    await connection.send(
        change_event(request, "created", "4", "c4")
    )  # sent before the new subscription
    await asyncio.sleep(0.1)
    assert watch.cursor == "c2"
    await connection.reply_subscribed(again, cursor="c2", scope="s", resumed=True)
    for n in (3, 4):
        await connection.send({**change_event(again, "created", str(n), f"c{n}"), "replayed": True})
    assert [(await anext(watch)).id for _ in "ab"] == ["3", "4"]
    await db.close()


async def test_value_that_is_not_json_raises_in_the_calling_method(server):
    """Raising in the sending task would stop the client without an error."""
    db, connection = await open_client(server)
    room = db.room("chat")
    join = await connection.receive("join")
    await connection.reply(join, "joined", room="chat", participants=0, members=[])
    await room.ready()
    watch = db.watch("posts")
    await connection.reply_subscribed(await connection.receive("subscribe"), cursor="c0", scope="s")
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
    await connection.reply(await connection.receive("broadcast"), "sent", room="chat")
    await said_now
    await db.close()
