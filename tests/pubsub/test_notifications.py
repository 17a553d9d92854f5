"""Announcements by PostgreSQL: they arrive, and neither delay nor fail a save."""

import asyncio
import contextlib
import os
import signal
import time

import pytest
from django.db import connection, connections, transaction

from django_cocobase_realtime.pubsub import listener as listener_module
from django_cocobase_realtime.pubsub import notifications
from django_cocobase_realtime.pubsub.broker import broker
from django_cocobase_realtime.pubsub.listener import DatabaseListener, DatabaseListeners
from django_cocobase_realtime.pubsub.notifications import LISTENER_LOCK, notify_listeners
from tests.app.models import Post
from tests.support.threads import call

pytestmark = [
    pytest.mark.skipif(connection.vendor != "postgresql", reason="Needs PostgreSQL."),
    pytest.mark.django_db(transaction=True),
]
POSTS = {"posts": ""}


@pytest.fixture(autouse=True)
def _new_state(monkeypatch):
    monkeypatch.setattr(notifications, "_unanswered_until", {})
    monkeypatch.setattr(notifications, "_failed_until", {})
    notifications._statements.cache_clear()
    yield
    notifications._statements.cache_clear()


class Received:
    """The calls of a listener."""

    def __init__(self):
        self.streams = []
        self.gaps = []

    async def wait(self, streams=0, gaps=0, seconds=10):
        async with asyncio.timeout(seconds):
            while len(self.streams) < streams or len(self.gaps) < gaps:
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def listening(*streams, using="default", wait=True, **options):
    received = Received()
    listener = DatabaseListener(
        using,
        received.streams.append,
        lambda using, names: received.gaps.append(sorted(names)),
        **options,
    )
    for stream in streams:
        listener.follow(stream)
    try:
        if wait:
            await received.wait(gaps=1)
        yield listener, received
    finally:
        async with asyncio.timeout(10):
            await listener.stop()


def notify(streams=POSTS, using="default"):
    """Announce as after a commit, on a connection that is open."""
    if connections[using].connection is None:
        connections[using].connect()  # Django's tests forbid `ensure_connection` of a new alias
    notifications._unanswered_until.clear()
    return notify_listeners(using, streams)


def terminate_listeners():
    """Terminate the connection that has the lock of listeners; return how many there were."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
            "AND (classid::bigint << 32) + objid::bigint = %s AND granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            [LISTENER_LOCK],
        )
        return len(cursor.fetchall())


async def test_announcement_arrives_for_followed_streams():
    async with listening("posts") as (listener, received):
        assert received.gaps == [["posts"]]
        assert await call(notify, {"posts": "", "others": ""})
        await received.wait(1)
        listener.follow("messages")
        await received.wait(gaps=2)
        assert received.gaps[1] == ["messages"]
        listener.unfollow("posts")
        await asyncio.sleep(0.2)
        assert await call(notify, {"posts": "", "messages": ""})
        await received.wait(2)
        await asyncio.sleep(0.1)
        assert received.streams == ["posts", "messages"]


async def test_listener_that_is_not_counted_leaves_announcements_to_the_channel_layer():
    async with listening("posts", is_counted=False) as (_, received):
        assert not await call(notify)
        await received.wait(1)
        assert received.streams == ["posts"]


async def test_process_ignores_its_own_announcement():
    async with listening("posts") as (_, received):
        assert await call(notify, {"posts": broker.origin})
        assert await call(notify, {"posts": "00"})
        await received.wait(1)
        await asyncio.sleep(0.1)
        assert received.streams == ["posts"]


async def test_absent_listener_is_noticed():
    assert not await call(notify)
    async with listening("posts") as (_, received):
        assert not notify_listeners("default", POSTS)  # not asked again so soon
        assert await call(notify)
        await received.wait(1)
    assert not await call(notify)


async def test_other_process_takes_over_when_the_first_has_stopped(monkeypatch):
    monkeypatch.setattr(listener_module, "KEEPALIVE_INTERVAL", 0.1)
    async with listening("posts") as (_, first), listening("posts") as (_, second):
        assert await call(notify)
        await first.wait(1)
        await second.wait(1)
        assert await call(terminate_listeners) == 1
        await first.wait(gaps=1)
        async with asyncio.timeout(5):
            while not await call(notify):
                await asyncio.sleep(0.02)
        await second.wait(2)


async def test_lost_connection_is_opened_again():
    async with listening("posts") as (listener, received):
        assert await call(terminate_listeners) == 1
        await received.wait(gaps=2)
        assert listener.is_listening
        count = len(received.streams)
        assert await call(notify)
        await received.wait(count + 1)


async def test_reader_is_removed_when_the_connection_is_lost(monkeypatch):
    monkeypatch.setattr(listener_module, "RETRY_DELAYS", (0.5, 0.5))
    loop = asyncio.get_running_loop()
    before = set(loop._selector.get_map())
    async with listening("posts") as (_, received):
        assert len(set(loop._selector.get_map()) - before) == 1
        assert await call(terminate_listeners) == 1
        async with asyncio.timeout(0.4):
            while set(loop._selector.get_map()) - before:
                await asyncio.sleep(0.01)
        await received.wait(gaps=2)
    assert set(loop._selector.get_map()) == before


async def test_connection_without_answer_is_replaced(monkeypatch):
    """A machine that disappears does not close its connections."""
    monkeypatch.setattr(listener_module, "KEEPALIVE_INTERVAL", 0.2)
    monkeypatch.setattr(listener_module, "ANSWER_TIMEOUT", 0.3)
    settings = connections["default"].settings_dict
    pids = []
    connect = listener_module.connect

    @contextlib.asynccontextmanager
    async def connect_and_remember(using):
        async with connect(using) as opened:
            pids.append(opened.info.backend_pid)
            yield opened

    monkeypatch.setattr(listener_module, "connect", connect_and_remember)
    assert settings["HOST"]
    async with listening("posts") as (_, received):
        os.kill(pids[0], signal.SIGSTOP)
        try:
            await received.wait(gaps=2)
        finally:
            os.kill(pids[0], signal.SIGCONT)
        async with asyncio.timeout(5):
            while not await call(notify):
                await asyncio.sleep(0.02)
        await received.wait(1)


async def test_listener_of_two_databases(monkeypatch):
    name = connections["default"].settings_dict["NAME"] + "_second"

    def execute(statement):
        with connection.cursor() as cursor:
            cursor.execute(statement)

    await call(execute, f'DROP DATABASE IF EXISTS "{name}"')
    await call(execute, f'CREATE DATABASE "{name}"')
    settings = {**connections["default"].settings_dict, "NAME": name}
    monkeypatch.setitem(connections.settings, "second", settings)
    streams, gaps = [], []
    listeners = DatabaseListeners(streams.append, lambda using, names: gaps.append((using, names)))
    try:
        listeners.follow("default", "posts")
        listeners.follow("second", "messages")
        listeners.follow("other", "items")  # SQLite
        async with asyncio.timeout(10):
            while len(gaps) < 2:
                await asyncio.sleep(0.01)
        assert sorted(gaps) == [("default", ["posts"]), ("second", ["messages"])]
        both = {"posts": "", "messages": ""}
        assert await call(notify, both)
        assert await call(lambda: notify(both, "second"))
        assert not await call(lambda: notify_listeners("other", both))
        async with asyncio.timeout(10):
            while len(streams) < 2:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert streams == ["posts", "messages"]
    finally:
        listeners.stop()
        await listeners.wait_stopped()
        await call(execute, f'DROP DATABASE "{name}" WITH (FORCE)')
        await call(lambda: vars(connections._connections).pop("second", None))


def test_statement_is_executed_after_the_commit_only(settings, monkeypatch):
    calls = []

    def remember(pgconn, streams):
        calls.append((pgconn.transaction_status, sorted(streams)))
        return True

    monkeypatch.setattr(notifications, "_notify", remember)
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": "app.Post", "drafts": "app.Post"}}
    with transaction.atomic():
        post = Post.objects.create(title="1")
        with contextlib.suppress(ValueError), transaction.atomic():
            Post.objects.create(title="2")
            raise ValueError
        post.save()
        assert calls == []
    assert calls == [(0, ["drafts", "posts"])]
    post.save()
    assert len(calls) == 2
    with contextlib.suppress(ValueError), transaction.atomic():
        post.save()
        raise ValueError
    assert len(calls) == 2
    transaction.set_autocommit(False)
    post.save()
    transaction.commit()
    assert len(calls) == 2
    transaction.set_autocommit(True)
    assert len(calls) == 3


@pytest.mark.django_db(transaction=False)
def test_nothing_is_executed_inside_of_a_test_case(django_capture_on_commit_callbacks, monkeypatch):
    monkeypatch.setattr(notifications, "_notify", lambda *args: pytest.fail("in a transaction"))
    with django_capture_on_commit_callbacks(execute=True):
        Post.objects.create(title="1")


def test_save_succeeds_if_the_server_does_not_answer_to_notify(monkeypatch, caplog):
    monkeypatch.setattr(notifications, "ANSWER_TIMEOUT", 0.3)
    connection.ensure_connection()
    pid = connection.connection.info.backend_pid
    later = []
    began = time.monotonic()
    try:
        with transaction.atomic():
            transaction.on_commit(lambda: os.kill(pid, signal.SIGSTOP))
            Post.objects.create(title="saved")
            transaction.on_commit(lambda: later.append(1))
        assert time.monotonic() - began < 2
    finally:
        os.kill(pid, signal.SIGCONT)
    assert later == [1]
    assert "NOTIFY failed" in caplog.text
    began = time.monotonic()
    Post.objects.create(title="another")  # on a new connection, and without NOTIFY
    assert time.monotonic() - began < 1
    assert Post.objects.filter(title__in=["saved", "another"]).count() == 2
    assert connection.connection.info.backend_pid != pid


def test_save_succeeds_if_notify_fails(monkeypatch, caplog):
    monkeypatch.setattr(notifications, "LOCK_TIMEOUT", "'invalid'")
    for title in "ab":
        Post.objects.create(title=title)
    assert caplog.text.count("NOTIFY failed") == 1  # not tried again at once
    assert Post.objects.count() == 2


def test_save_succeeds_if_the_connection_was_closed_on_commit():
    with transaction.atomic():
        transaction.on_commit(connection.close)
        Post.objects.create(title="a")
    assert Post.objects.count() == 1


def test_statement_is_not_one_of_the_project(django_assert_num_queries):
    with django_assert_num_queries(1):
        Post.objects.create(title="a")
