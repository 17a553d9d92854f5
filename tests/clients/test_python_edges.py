"""The Python client in rare situations: cancellations, misuse, full buffers."""

import asyncio
import sys
import threading

import pytest

from django_cocobase_realtime.client import Realtime, RealtimeError
from django_cocobase_realtime.client import sync as realtime
from django_cocobase_realtime.client.requests import RequestChannel
from tests.clients.blocking_script import Script
from tests.clients.scripted_server import ScriptedServer, change_event
from tests.clients.test_python_client import open_client
from tests.clients.test_python_lifecycle import join


@pytest.fixture
async def server():
    async with ScriptedServer() as server:
        yield server


async def open_watch(db, connection, **options):
    watch = db.watch("posts", **options)
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    return await watch.ready(), request


async def test_client_whose_task_is_cancelled_ends(server):
    """As by a program that cancels all tasks of its event loop."""
    db, connection = await open_client(server)
    watch, _ = await open_watch(db, connection)
    room = await join(db, connection)
    waiting = asyncio.create_task(room.broadcast("x"))
    await connection.receive("broadcast")
    db._task.cancel()
    assert [event async for event in watch] == []
    with pytest.raises(RealtimeError) as raised:
        await asyncio.wait_for(waiting, 5)
    assert raised.value.code == "closed"
    assert db.status == "closed"
    await asyncio.wait_for(connection.closed.wait(), 5)


async def test_client_closed_by_several_tasks_closes_its_socket(server):
    db, connection = await open_client(server)
    closing = [asyncio.create_task(db.close())]
    await asyncio.sleep(0.001)
    closing += [asyncio.create_task(db.close()) for _ in "ab"]
    await asyncio.wait_for(asyncio.gather(*closing), 5)
    await asyncio.wait_for(connection.closed.wait(), 5)
    assert connection.socket.close_code == 1000


async def test_socket_is_closed_if_the_close_is_cancelled(server):
    db, connection = await open_client(server)
    closing = asyncio.create_task(db.close())
    for _ in range(3):
        await asyncio.sleep(0)
    db._task.cancel()
    await asyncio.wait_for(closing, 5)
    await asyncio.wait_for(connection.closed.wait(), 5)


async def test_client_closed_in_a_token_function_does_not_connect(server):
    async def token():
        await db.close()
        return "key"

    db = Realtime(server.url, token=token, proxy=None)
    db.start()
    with pytest.raises(RealtimeError, match="closed"):
        await asyncio.wait_for(db.connected(), 5)
    await asyncio.sleep(0.2)
    assert server.count == 0
    assert db._task.done()


async def test_update_of_a_watch_with_a_full_buffer_settles(server):
    """A program that updates the watch in its loop reads no events meanwhile."""
    db, connection = await open_client(server)
    watch, request = await open_watch(db, connection, buffer=2)
    for n in (1, 2, 3):
        await connection.send(change_event(request, "created", str(n), f"c{n}"))
    await connection.receive("unsubscribe")
    update = asyncio.create_task(watch.update(filters={"n": 1}))
    request = await connection.receive("subscribe")
    # the third event was dropped, so that the server must report that some are missing
    assert (request["filters"], request["since"], request["scope"]) == ({"n": 1}, "c2", "")
    resync = {"resumed": False, "resync": {"reason": "scope_changed"}}
    await connection.reply_subscribed(request, cursor="c3", scope="t", **resync)
    await asyncio.wait_for(update, 5)
    assert [(await anext(watch)).event for _ in range(3)] == ["created", "created", "resync"]
    await connection.send(change_event(request, "created", "4", "c4"))
    assert (await asyncio.wait_for(anext(watch), 5)).id == "4"
    await db.close()


async def test_refused_update_of_a_watch_with_a_full_buffer_loses_nothing(server):
    db, connection = await open_client(server)
    watch, request = await open_watch(db, connection, buffer=2)
    for n in (1, 2):
        await connection.send(change_event(request, "created", str(n), f"c{n}"))
    await connection.receive("unsubscribe")
    update = asyncio.create_task(watch.update(filters={"nope": 1}))
    await connection.reply_error(await connection.receive("subscribe"), "invalid_filter")
    with pytest.raises(RealtimeError, match="invalid_filter"):
        await update
    request = await connection.receive("subscribe")
    assert (request["filters"], request["since"], request["scope"]) == ({}, "c2", "s")
    await db.close()


async def test_buffer_that_fills_up_during_an_update_does_not_stop_it(server):
    db, connection = await open_client(server)
    watch, request = await open_watch(db, connection, buffer=2)
    update = asyncio.create_task(watch.update(filters={"n": 1}))
    updated = await connection.receive("subscribe")
    for n in (1, 2, 3):
        await connection.send(change_event(request, "created", str(n), f"c{n}"))
    await connection.reply_subscribed(updated, cursor="c3", scope="t")
    await asyncio.wait_for(update, 5)
    assert [(await anext(watch)).id for _ in range(3)] == ["1", "2", "3"]
    await connection.receive_nothing()
    await db.close()


@pytest.mark.parametrize("option", ["fliters", "status", "since", "compare"])
async def test_update_refuses_unknown_options(server, option):
    db, connection = await open_client(server)
    subscriptions = db.watch("posts"), db.live("posts"), db.count("posts")
    for subscription in subscriptions:
        await connection.receive("subscribe")
        with pytest.raises(TypeError, match=option):
            await subscription.update(**{option: "x"})
    await connection.receive_nothing()
    await db.close()


async def test_update_with_none_returns_to_the_default(server):
    db, connection = await open_client(server)
    watch, _ = await open_watch(db, connection, fields=["title"], n=1)
    update = asyncio.create_task(watch.update(fields=None))
    request = await connection.receive("subscribe")
    assert (request["filters"], "fields" in request) == ({"n": 1}, False)
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await update
    await db.close()


@pytest.mark.parametrize("timeout", [None, 0, -1, "8", True, float("nan")])
def test_timeout_that_is_no_positive_number_raises(timeout):
    with pytest.raises((TypeError, ValueError), match="timeout"):
        Realtime("ws://127.0.0.1:9/", timeout=timeout)


async def test_refused_call_in_another_thread_changes_nothing(server):
    db, connection = await open_client(server)
    watch, request = await open_watch(db, connection)
    room = await join(db, connection)
    outcome = []

    def use():
        for call in (watch.stop, room.leave):
            with pytest.raises(RuntimeError, match=r"client\.sync"):
                call()
            outcome.append(call)

    thread = threading.Thread(target=use)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert len(outcome) == 2
    await connection.send(change_event(request, "created", "1", "c1"))
    assert (await asyncio.wait_for(anext(watch), 5)).id == "1"
    room.leave()
    await connection.receive("leave")
    await db.close()


async def test_asynchronous_reader_before_the_loop_runs_is_reported():
    def subscribe():
        errors = []
        db = Realtime("ws://127.0.0.1:9/", on_error=errors.append)
        db.live("posts").subscribe(reader)
        return errors

    async def reader(documents):
        raise AssertionError

    (error,) = await asyncio.to_thread(subscribe)
    assert (error.code, error.source) == ("listener_failed", "listener")


def exit_program(*values):
    sys.exit(3)


async def exit_program_later(*values):
    sys.exit(3)


@pytest.mark.parametrize("listener", [exit_program, exit_program_later])
def test_exit_in_a_listener_does_not_end_the_client_in_its_thread(listener):
    script, errors = Script(), []
    db = realtime.Realtime(
        script.url, token="key", proxy=None, on_status=listener, on_error=errors.append
    )
    accepted = script.later(script.server.accept_authenticated())
    with db:
        accepted.result(5)
        db.room("chat")
        assert db.status == "live"
    assert {error.code for error in errors} == {"listener_failed"}
    script.close()


@pytest.mark.parametrize("token", [exit_program, exit_program_later])
def test_exit_in_a_token_function_is_reported(token):
    errors = []
    db = realtime.Realtime("ws://127.0.0.1:9/", token=token, proxy=None, on_error=errors.append)
    db.start()
    with pytest.raises(TimeoutError):
        db.connected(timeout=0.3)
    assert (errors[0].code, errors[0].source) == ("not_connected", "token")
    db.close()


def test_client_whose_loop_was_ended_is_closed():
    db = realtime.Realtime("ws://127.0.0.1:9/", proxy=None)
    db.start()
    loop = db._get_loop()
    loop._loop.call_soon_threadsafe(loop._loop.stop)
    for _ in "ab":
        with pytest.raises(RealtimeError, match="closed"):
            db.connected(timeout=5)
    with pytest.raises(RealtimeError, match="closed"):
        db.watch("posts")
    db.close()


async def test_client_connects_at_its_first_use(server):
    db = Realtime(server.url, proxy=None)
    watch = db.watch("posts")
    connection = await server.accept_authenticated()
    await connection.reply_subscribed(await connection.receive("subscribe"), cursor="c0")
    await asyncio.wait_for(watch.ready(), 5)
    await db.close()


def test_client_without_asyncio_connects_at_its_first_use():
    script = Script()
    db = realtime.Realtime(script.url, proxy=None)
    room = db.room("chat")
    script.do(script.server.accept_authenticated())
    db.connected(timeout=5)
    room.leave()
    db.close()
    script.close()


async def test_failure_of_a_watch_names_its_subscription(server):
    errors = asyncio.Queue()
    db, connection = await open_client(server, on_error=errors.put_nowait)
    watch = db.watch("posts")
    request = await connection.receive("subscribe")
    await connection.reply_error(request, "internal_error")
    error = await asyncio.wait_for(errors.get(), 5)
    assert (error.code, error.subscription) == ("internal_error", request["subscription"])
    watch.stop()
    await db.close()


def test_request_that_the_client_refuses_is_answered_after_the_call():
    """As by the server: the program's state at the reply is that after the call."""
    sent, later, replies = [], [], []
    channel = RequestChannel(sent.append, lambda delay, callback: later.append(callback))
    channel.handle_open()
    channel.handle_authenticated("c", {"message_bytes": 100})
    channel.send_request({"type": "join", "room": "x" * 200}, replies.append)
    assert replies == []
    for callback in later:
        callback()
    assert [reply["code"] for reply in replies] == ["too_large"]
    assert sent == []
