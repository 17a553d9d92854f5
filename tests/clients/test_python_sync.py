"""The Python client without asyncio: threads, timeouts, signals, forks, the end of a program."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from django_cocobase_realtime.client import RealtimeError
from django_cocobase_realtime.client import sync as realtime
from tests.clients.blocking_script import Script
from tests.clients.scripted_server import broadcast_event, change_event
from tests.support.servers import ROOT

TIMEOUT = 10


@pytest.fixture
def script():
    script = Script()
    yield script
    script.close()


def open_client(script, **options):
    db = realtime.Realtime(script.url, token="key", proxy=None, **options)
    db.start()
    connection = script.do(script.server.accept_authenticated())
    db.connected(TIMEOUT)
    return db, connection


def open_watch(script, db, connection, **options):
    watch = db.watch("posts", **options)
    request = script.do(connection.receive("subscribe"))
    script.do(connection.reply_subscribed(request, cursor="c0", scope="s"))
    return watch.ready(TIMEOUT), request


def open_room(script, db, connection, **options):
    room = db.room("chat", **options)
    join = script.do(connection.receive("join"))
    member = {"id": "7", "name": "ada"}
    joined = {"room": "chat", "participants": 1, "members": [member]}
    script.do(connection.reply(join, "joined", **joined))
    return room.ready(TIMEOUT)


def run_in_thread(function):
    """Run a function in a thread; return the thread, and a list that gets the result or error."""
    outcome = []

    def run():
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def test_watch_is_iterated(script):
    db, connection = open_client(script)
    watch, request = open_watch(script, db, connection, status="published")
    assert request["filters"] == {"status": "published"}
    for n in (1, 2):
        script.do(connection.send(change_event(request, "created", str(n), f"c{n}", n=n)))
    events = [event.data["n"] for _, event in zip(range(2), watch, strict=False)]
    assert events == [1, 2]
    assert (watch.scope, db.user["name"], db.status) == ("s", "ada", "live")
    watch.stop()
    script.do(connection.receive("unsubscribe"))
    db.close()
    assert list(watch) == []
    assert db.status == "closed"


def test_client_is_a_context_manager(script):
    def run():
        with realtime.Realtime(script.url, token="key", proxy=None) as db:
            return db.user

    thread, outcome = run_in_thread(run)
    connection = script.do(script.server.accept_authenticated())
    thread.join(TIMEOUT)
    assert outcome == [{"id": "7", "name": "ada"}]
    script.do(connection.closed.wait())


def test_refusal_is_the_same_exception(script):
    async def refuse():
        connection = await script.server.accept()
        await connection.receive("auth")
        await connection.close(4500)

    script.later(refuse())
    with (
        pytest.raises(RealtimeError, match="4500") as raised,
        realtime.Realtime(script.url, token="bad", proxy=None),
    ):
        pass
    assert raised.value.code == 4500
    with pytest.raises(TypeError, match="token"):
        realtime.Realtime(script.url, tokn="key")


def test_list_is_followed(script):
    db, connection = open_client(script)
    posts = db.live("posts")
    request = script.do(connection.receive("subscribe"))
    seen = []
    posts.subscribe(lambda documents: seen.append((len(documents), threading.current_thread())))
    script.do(connection.reply_subscribed(request, cursor="c0", scope="s"))
    script.do(connection.send_snapshot(request, ("1", {"n": 1}), cursor="c0"))
    posts.ready(TIMEOUT)
    changes = posts.changes()
    script.do(connection.send(change_event(request, "created", "2", "c1", n=0)))
    assert [document.id for document in changes.get(TIMEOUT)] == ["1", "2"]
    assert len(posts.documents) == 2
    assert [count for count, _ in seen] == [0, 1, 2]
    assert threading.current_thread() not in {thread for _, thread in seen}
    posts.stop()
    assert list(changes) == []
    db.close()


def test_window_is_extended(script):
    db, connection = open_client(script)
    posts = db.live("posts", order=["-n"], limit=1)
    request = script.do(connection.receive("subscribe"))
    assert request["window"] == {"order": ["-n"], "limit": 1}
    script.do(connection.reply_subscribed(request, scope="s"))
    first = ((0, "2", {"n": 2}),)
    script.do(connection.send_window(request, *first, reset=True, cursor="c0", more=True, next="p"))
    posts.ready(TIMEOUT)
    assert (len(posts.documents), posts.has_more, posts.next) == (1, True, "p")
    with pytest.raises(TimeoutError):
        posts.more(timeout=0.1)
    # the request was sent, and stands
    request = script.do(connection.receive("subscribe"))
    assert request["window"]["limit"] == 2
    thread, outcome = run_in_thread(lambda: posts.more(3, timeout=TIMEOUT))
    request = script.do(connection.receive("subscribe"))
    assert request["window"]["limit"] == 5
    script.do(connection.reply_subscribed(request, scope="s"))
    script.do(connection.send_window(request, (1, "1", {"n": 1}), cursor="c0"))
    thread.join(TIMEOUT)
    assert outcome == [None]
    assert [document.id for document in posts.documents] == ["2", "1"]
    assert (posts.has_more, posts.next) == (False, None)
    db.close()


def test_count_is_followed(script):
    db, connection = open_client(script)
    with db.count("posts", group_by="state", status="published") as count:
        assert (count.value, count.groups) == (None, ())
        request = script.do(connection.receive("subscribe"))
        assert request["filters"] == {"status": "published"}
        script.do(connection.reply_subscribed(request, scope="s"))
        groups = [{"key": {"state": state}, "count": 1} for state in ("a", "b")]
        script.do(connection.send_aggregate(request, *groups, reset=True, cursor="c0"))
        assert count.ready(TIMEOUT) is count
        changes, seen = count.changes(), []
        stop = count.subscribe(lambda groups: seen.append(len(groups)))
        gone = {"key": {"state": "a"}, "count": 0}
        script.do(connection.send_aggregate(request, gone, cursor="c1"))
        assert [group.key for group in changes.get(TIMEOUT)] == [{"state": "b"}]
        assert (count.value, seen) == (1, [2, 1])
        stop()
        thread, outcome = run_in_thread(lambda: count.update(TIMEOUT, group_by=None))
        request = script.do(connection.receive("subscribe"))
        assert request["aggregate"] == {"count": True}
        script.do(connection.reply_subscribed(request, scope="s"))
        script.do(connection.send_aggregate(request, {"count": 1}, reset=True, cursor="c1"))
        thread.join(TIMEOUT)
        assert (outcome, count.groups[0].key, seen) == ([None], {}, [2, 1])
    script.do(connection.receive("unsubscribe"))
    db.close()


def test_room_is_used(script):
    db, connection = open_client(script)
    room = open_room(script, db, connection, history=5)
    assert (room.name, room.participants, room.members[0]["name"]) == ("chat", 1, "ada")
    script.do(connection.send(broadcast_event("chat", "before the iteration", cursor="m1")))
    assert room.messages().get(TIMEOUT).message == "before the iteration"
    thread, outcome = run_in_thread(lambda: room.broadcast("x", timeout=TIMEOUT))
    request = script.do(connection.receive("broadcast"))
    script.do(connection.reply(request, "sent", room="chat"))
    thread.join(TIMEOUT)
    assert outcome == [None]
    thread, outcome = run_in_thread(lambda: room.set_state({"typing": True}))
    script.do(connection.reply(script.do(connection.receive("state")), "state", room="chat"))
    thread.join(TIMEOUT)
    assert room.state == {"typing": True}
    with pytest.raises(ValueError, match="NUL"):
        room.broadcast("\0")
    room.leave()
    script.do(connection.receive("leave"))
    db.close()


def test_broadcast_after_a_timeout_is_not_sent_later(script):
    db, connection = open_client(script)
    room = db.room("chat")
    join = script.do(connection.receive("join"))
    with pytest.raises(TimeoutError):
        room.broadcast("too late", timeout=0.1)
    script.do(connection.reply(join, "joined", room="chat", participants=1, members=[]))
    room.ready(TIMEOUT)
    script.do(connection.receive_nothing())
    db.close()


def test_item_is_not_lost_by_a_timeout(script):
    db, connection = open_client(script)
    watch, request = open_watch(script, db, connection)
    n, received = 0, []
    while n < 200:
        script.later(connection.send(change_event(request, "created", str(n), f"c{n + 1}")))
        n += 1
        try:
            received.append(watch.get(timeout=0.001).id)
        except TimeoutError:
            continue
    while len(received) < 200:
        received.append(watch.get(TIMEOUT).id)
    assert received == [str(n) for n in range(200)]
    with pytest.raises(TimeoutError):
        watch.get(0.05)
    db.close()
    with pytest.raises(RealtimeError, match="no more"):
        watch.get(TIMEOUT)


def test_close_ends_all_threads_that_wait(script):
    db, connection = open_client(script)
    watch, _ = open_watch(script, db, connection)
    room = open_room(script, db, connection)
    pending = db.watch("other")
    messages = db.messages()
    runs = [
        run_in_thread(work)
        for work in (
            lambda: list(watch),
            lambda: list(watch),  # two threads with the same iterator
            lambda: list(room),
            lambda: list(messages),
            lambda: room.broadcast("x"),
            lambda: pending.ready(),
        )
    ]
    time.sleep(0.3)
    db.close()
    for thread, _ in runs:
        thread.join(TIMEOUT)
    *ended, broadcast, ready = (outcome[0] for _, outcome in runs)
    assert ended == [[], [], [], []]
    assert (broadcast.code, ready.code) == ("closed", "closed")


def test_closed_client_raises(script):
    db, connection = open_client(script)
    room = open_room(script, db, connection)
    db.close()
    db.close()
    for use in (
        db.start,
        db.connected,
        db.messages,
        lambda: db.watch("posts"),
        lambda: db.live("posts"),
        lambda: db.room("chat"),
        lambda: room.broadcast("x"),
        lambda: room.set_state({}),
    ):
        with pytest.raises(RealtimeError) as raised:
            use()
        assert raised.value.code == "closed"
    room.leave()  # what ends something does nothing
    realtime.Realtime(script.url).close()


def test_client_is_used_by_several_threads(script):
    db, connection = open_client(script)
    room = open_room(script, db, connection)

    async def confirm():
        for _ in range(40):
            request = await connection.receive("broadcast")
            await connection.reply(request, "sent", room="chat")

    confirmed = script.later(confirm())
    runs = [
        run_in_thread(lambda: [room.broadcast(n, timeout=TIMEOUT) for n in range(10)])
        for _ in range(4)
    ]
    confirmed.result(TIMEOUT)
    for thread, outcome in runs:
        thread.join(TIMEOUT)
        assert outcome == [[None] * 10]
    db.close()


def test_listener_that_waits_for_the_client_is_refused(script):
    errors = []

    def on_status(status, detail):
        if status == "live":
            db.room("chat")

    db = realtime.Realtime(
        script.url, token="key", proxy=None, on_status=on_status, on_error=errors.append
    )
    db.start()
    script.do(script.server.accept_authenticated())
    db.connected(TIMEOUT)
    assert [error.source for error in errors] == ["listener"]
    assert "must not wait" in str(errors[0])
    db.close()


def test_unused_client_is_closed(script):
    db, connection = open_client(script)
    watch, _ = open_watch(script, db, connection)
    del db
    gc.collect()
    with pytest.raises(TimeoutError):  # a watch keeps the client in use
        watch.get(0.1)
    assert not connection.closed.is_set()
    del watch
    gc.collect()
    script.do(asyncio.wait_for(connection.closed.wait(), TIMEOUT))


def test_unused_watch_is_unsubscribed(script):
    db, connection = open_client(script)
    watch, request = open_watch(script, db, connection)
    script.do(connection.send(change_event(request, "created", "1", "c1")))
    for _event in watch:
        break
    with pytest.raises(TimeoutError):
        watch.get(0.05)
    del watch, _event
    gc.collect()
    script.do(connection.receive("unsubscribe"))
    db.close()


def run_program(url, body):
    """Start a program that uses the client."""
    program = f"""
        import os, sys, threading, time
        from django_cocobase_realtime.client import RealtimeError, sync as realtime
        db = realtime.Realtime({url!r}, token="key", proxy=None)
    """
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program) + textwrap.dedent(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_program_that_does_not_close_the_client_ends(script):
    process = run_program(script.url, "db.start(); db.connected(); db.watch('posts')")
    connection = script.do(script.server.accept_authenticated())
    output = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, *output) == (0, "", "")
    script.do(connection.closed.wait())
    assert connection.socket.close_code == 1000  # it was closed, not cut


def test_program_ends_while_the_client_cannot_connect():
    process = run_program("ws://127.0.0.1:9/", "db.start(); time.sleep(0.5)")
    assert process.communicate(timeout=TIMEOUT)[0] == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    "body",
    [
        "with db:\n    for event in db.watch('posts'): pass",
        "with db:\n    db.room('chat').broadcast('x')",
        "with db:\n    db.watch('posts').get(timeout=60)",
    ],
)
def test_interrupt_ends_a_program_that_waits(script, body):
    process = run_program(script.url, body)
    connection = script.do(script.server.accept_authenticated())
    script.do(connection.receive_any())
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert "KeyboardInterrupt" in errors.splitlines()[-1]
    script.do(connection.closed.wait())


def test_interrupt_ends_a_program_that_connects():
    process = run_program("ws://127.0.0.1:9/", "print('begins', flush=True)\nwith db: pass")
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=TIMEOUT)[1].splitlines()[-1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="This system has no fork.")
def test_forked_process_is_refused_and_ends(script):
    body = """
        db.start(); db.connected()
        watch = db.watch("posts")
        pid = os.fork()
        if pid == 0:
            try:
                db.room("chat")
            except RuntimeError as error:
                print("child:", error, flush=True)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("parent:", db.status, flush=True)
    """
    process = run_program(script.url, body)
    script.do(script.server.accept_authenticated())
    output = process.communicate(timeout=TIMEOUT)[0].splitlines()
    assert process.returncode == 0
    assert "create one in each process" in output[0]
    assert output[1] == "parent: live"


def test_client_created_before_a_fork_is_usable_after_it(script):
    body = """
        pid = os.fork()
        if pid == 0:
            with db:
                print("child:", db.user["name"], flush=True)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    """
    process = run_program(script.url, body)
    script.do(script.server.accept_authenticated())
    assert process.communicate(timeout=TIMEOUT)[0] == "child: ada\n"
