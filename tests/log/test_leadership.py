"""One process per stream numbers: which one, and who follows it."""

import asyncio
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections

from django_cocobase_realtime.log import postgres_numbering
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.log.log_reader import create_reader
from django_cocobase_realtime.models import LogEvent, Stream

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connections["default"].vendor != "postgresql", reason="PostgreSQL"),
]
POSITIONS = {"posts": Position("", 0), "items": Position("", 0)}


def wait_for_locks():
    """Wait until the sessions of other tests have ended, which were the leaders."""
    deadline = time.monotonic() + 20
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            if cursor.fetchone() == (0,):
                return
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
async def readers():
    """Readers of two server processes."""
    await sync_to_async(wait_for_locks)()
    for name in POSITIONS:
        await Stream.objects.acreate(collection=name)
    readers = [create_reader("default") for _ in range(2)]
    yield readers
    for reader in readers:
        reader.close()
    await asyncio.sleep(0.05)


def leaders(readers, collection="posts"):
    return [reader.is_leader(collection) for reader in readers]


async def become_leader(reader, collection="posts"):
    """Wait until a reader that looks regularly is the leader."""
    async with asyncio.timeout(10):
        while not reader.is_leader(collection):
            await reader.find_behind(POSITIONS)
            await asyncio.sleep(0.02)


async def test_first_reader_is_the_leader(readers):
    first, second = readers
    await first.fetch_new("posts", None)
    await second.fetch_new("posts", None)
    assert leaders(readers) == [True, False]
    await second.fetch_new("items", None)
    await first.fetch_new("items", None)
    assert leaders(readers, "items") == [False, True]
    await second.find_behind(POSITIONS)
    assert leaders(readers) == [True, False]


async def test_stream_that_is_no_longer_followed_gets_another_leader(readers):
    first, second = readers
    for name in POSITIONS:
        await first.fetch_new(name, None)
    await second.find_behind(POSITIONS)
    first.release("posts")
    await become_leader(second)
    assert leaders(readers) == [False, True]
    assert leaders(readers, "items") == [True, False]


async def test_leader_may_follow_again_at_once(readers):
    first, second = readers
    await first.fetch_new("posts", None)
    first.release("posts")
    await first.fetch_new("posts", None)
    await asyncio.sleep(0.05)
    await second.find_behind(POSITIONS)
    assert leaders(readers) == [True, False]
    first.release("posts")
    await become_leader(second)


async def test_closed_reader_gives_up_its_streams(readers):
    first, second = readers
    await first.fetch_new("posts", None)
    first._connection.close()
    await become_leader(second)
    assert leaders(readers) == [False, True]


async def test_terminated_session_is_not_the_leader(readers):
    def terminate():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    first, second = readers
    await first.fetch_new("posts", None)
    ((pid,),) = await first._connection.fetch("SELECT pg_backend_pid()")
    await sync_to_async(terminate)()
    await second.find_behind(POSITIONS)
    assert second.is_leader("posts")
    await first.fetch_new("posts", None)  # with a new connection
    await first.fetch_new("posts", None)
    assert leaders(readers) == [False, True]


async def test_follower_numbers_if_it_must_read(readers):
    """Leadership saves work; it does not decide which events exist."""
    first, second = readers
    await first.fetch_new("posts", None)
    batch = await second.fetch_new("posts", None)
    await LogEvent.objects.acreate(
        collection="posts", transaction_id="a", op="created", document_id="1", after="{}"
    )
    behind = {"posts": Position(batch.epoch, 0)}
    assert await second.find_behind(behind) == {"posts"}
    batch = await second.fetch_new("posts", behind["posts"])
    assert [change.seq for change in batch.changes] == [1]
    assert await second.find_behind({"posts": Position(batch.epoch, 1)}) == set()
    assert await second.find_behind({"posts": Position("other", 1)}) == {"posts"}
    assert leaders(readers) == [True, False]


async def test_without_the_function_no_reader_is_chosen(readers, monkeypatch):
    monkeypatch.setattr(postgres_numbering, "_SIGNATURE", "not_installed()")
    for reader in readers:
        await reader.fetch_new("posts", None)
    assert leaders(readers) == [None, None]
