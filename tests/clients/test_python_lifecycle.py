"""The life of the Python client: cancellation, closing, other threads and loops, iterators."""

import asyncio
import json
import threading

import pytest

from django_cocobase_realtime.client import InvalidRequest, Realtime, RealtimeError
from django_cocobase_realtime.client.validation import prepare
from tests.clients.scripted_server import ScriptedServer, change_event
from tests.clients.test_python_client import open_client


@pytest.fixture
async def server():
    async with ScriptedServer() as server:
        yield server


async def join(db, connection):
    room = db.room("chat")
    request = await connection.receive("join")
    await connection.reply(request, "joined", room="chat", participants=1, members=[])
    return await room.ready()


async def test_closed_client_raises(server):
    db, _ = await open_client(server)
    room, watch, posts = db.room("chat"), db.watch("posts"), db.live("posts")
    await db.close()
    await db.close()
    for use in (db.start, db.messages, lambda: db.watch("x"), lambda: db.live("x")):
        with pytest.raises(RealtimeError, match="closed"):
            use()
    for wait in (
        db.connected(),
        room.ready(),
        room.broadcast("x"),
        room.set_state({}),
        watch.ready(),
        watch.update(filters={}),
        posts.ready(),
    ):
        with pytest.raises(RealtimeError) as raised:
            await asyncio.wait_for(wait, 5)
        assert raised.value.code == "closed"


async def test_close_ends_a_wait_for_the_connection():
    db = Realtime("ws://127.0.0.1:9/", proxy=None)
    with pytest.raises(RealtimeError, match="not started"):
        await db.connected()
    db.start()
    waiting = asyncio.create_task(db.connected())
    await asyncio.sleep(0.1)
    await db.close()
    with pytest.raises(RealtimeError, match="closed"):
        await asyncio.wait_for(waiting, 5)


async def test_cancelled_close_raises_the_cancellation(server):
    db, connection = await open_client(server)
    task = asyncio.create_task(db.close())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert db.status == "closed"
    await asyncio.wait_for(connection.closed.wait(), 5)


async def test_close_in_a_token_function_does_not_wait_for_itself():
    async def token():
        await db.close()

    db = Realtime("ws://127.0.0.1:9/", token=token, proxy=None)
    db.start()
    with pytest.raises(RealtimeError, match="closed"):
        await asyncio.wait_for(db.connected(), 5)


async def test_cancelled_wait_for_an_event_loses_none(server):
    db, connection = await open_client(server)
    watch = db.watch("posts")
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0")
    received = []
    for n in range(50):
        await connection.send(change_event(request, "created", str(n), f"c{n + 1}"))
        try:
            async with asyncio.timeout(0.0002 * (n % 5)):
                received.append((await anext(watch)).id)
        except TimeoutError:
            continue
    while len(received) < 50:
        received.append((await asyncio.wait_for(anext(watch), 5)).id)
    assert received == [str(n) for n in range(50)]
    await db.close()


async def test_two_tasks_share_the_events_of_a_watch(server):
    db, connection = await open_client(server)
    watch = db.watch("posts")
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0")
    received = []

    async def read():
        async for event in watch:
            received.append(event.id)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(read()) for _ in "ab"]
    for n in range(20):
        await connection.send(change_event(request, "created", str(n), f"c{n + 1}"))
    await asyncio.sleep(0.2)
    await db.close()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert sorted(received, key=int) == [str(n) for n in range(20)]


async def test_cancelled_broadcast_is_not_sent_later(server):
    db, connection = await open_client(server)
    room = db.room("chat")
    waiting = [asyncio.create_task(room.broadcast(text)) for text in ("cancelled", "kept")]
    await asyncio.sleep(0.05)
    waiting[0].cancel()
    request = await connection.receive("join")
    await connection.reply(request, "joined", room="chat", participants=1, members=[])
    request = await connection.receive("broadcast")
    assert request["message"] == "kept"
    await connection.reply(request, "sent", room="chat")
    await waiting[1]
    await connection.receive_nothing()
    await db.close()


async def test_cancelled_broadcast_that_is_refused_by_rate_is_not_sent_again(server):
    db, connection = await open_client(server)
    room = await join(db, connection)
    waiting = asyncio.create_task(room.broadcast("cancelled"))
    request = await connection.receive("broadcast")
    waiting.cancel()
    await asyncio.sleep(0)
    await connection.reply_error(request, "rate_limited", retry_after_ms=50)
    await connection.receive_nothing()
    await db.close()


async def test_stopped_watch_that_is_refused_by_rate_is_not_requested_again(server):
    db, connection = await open_client(server)
    watch = db.watch("posts")
    request = await connection.receive("subscribe")
    watch.stop()
    unsubscribe = await connection.receive("unsubscribe")
    await connection.reply_error(request, "rate_limited", retry_after_ms=50)
    await connection.reply_error(unsubscribe, "not_subscribed")
    await connection.receive_nothing()
    await db.close()


async def test_message_that_changes_while_it_waits_is_sent_as_it_was(server):
    db, connection = await open_client(server)
    room = db.room("chat")
    message = {"text": "before"}
    task = asyncio.create_task(room.broadcast(message))
    await asyncio.sleep(0)
    message["text"] = object()
    request = await connection.receive("join")
    await connection.reply(request, "joined", room="chat", participants=1, members=[])
    request = await connection.receive("broadcast")
    assert request["message"] == {"text": "before"}
    await connection.reply(request, "sent", room="chat")
    await task
    await db.close()


async def test_other_thread_is_refused(server):
    db, connection = await open_client(server)
    room, outcome = await join(db, connection), []
    watch = db.watch("posts")
    await connection.receive("subscribe")

    def use():
        for call in (
            lambda: db.watch("x"),
            lambda: asyncio.run(db.connected()),
            lambda: asyncio.run(db.close()),
            lambda: asyncio.run(room.broadcast("x")),
            watch.stop,
        ):
            with pytest.raises(RuntimeError, match=r"client\.sync"):
                call()
            outcome.append(call)

    thread = threading.Thread(target=use)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert len(outcome) == 5
    await db.close()


def test_client_is_refused_in_another_loop():
    db = Realtime("ws://127.0.0.1:9/", proxy=None)

    async def start():
        db.start()

    asyncio.run(start())
    with pytest.raises(RuntimeError, match="one event loop"):
        asyncio.run(start())


async def test_room_is_a_context_manager(server):
    db, connection = await open_client(server)
    async with await join(db, connection), db.room("chat") as room:
        pass
    assert (await connection.receive("leave"))["room"] == room.name
    await db.close()


@pytest.mark.parametrize(
    "value",
    [
        "half \ud83d",
        "\0",
        float("nan"),
        float("inf"),
        2**53 + 1,
        -(2**60),
        {1: "a", "1": "b"},
        {str(n): n for n in range(600)},
        json.loads("[" * 40 + "]" * 40),
        "x" * 70_000,
        "é" * 40_000,
    ],
)
def test_value_that_the_server_would_refuse_is_refused(value):
    with pytest.raises(InvalidRequest):
        prepare({"type": "broadcast", "room": "r", "message": value}, 65536)


def test_circular_value_is_refused():
    value = []
    value.append(value)
    with pytest.raises(InvalidRequest):
        prepare({"type": "broadcast", "room": "r", "message": value})


async def test_data_of_a_list_cannot_be_changed(server):
    db, connection = await open_client(server)
    posts = db.live("posts")
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, ("1", {"n": 1, "tags": ["a"]}), cursor="c0")
    await posts.ready()
    data = posts.documents[0].data
    for change in (lambda: data.update(n=2), lambda: data["tags"].append("b")):
        with pytest.raises(TypeError, match="copy"):
            change()
    assert json.loads(json.dumps(data)) == data == {"n": 1, "tags": ["a"]}
    await db.close()
