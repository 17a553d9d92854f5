"""A tailer on PostgreSQL delivers again after every way in which its connection can be lost."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections

from django_cocobase_realtime.delivery import tailer as tailer_module
from django_cocobase_realtime.delivery.tailer import LogTailer
from django_cocobase_realtime.log import postgres_connection, postgres_reader
from django_cocobase_realtime.log.log_reader import create_reader
from django_cocobase_realtime.models import LogEvent, Stream
from tests.support.hanging_server import HangingServer

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connections["default"].vendor != "postgresql", reason="PostgreSQL"),
]
POLL = 0.2
TIMEOUT = 0.5


@pytest.fixture
async def server(monkeypatch, tmp_path):
    """The database server, with faults for the reader of the tailer alone."""
    for module, name in (
        (postgres_connection, "STATEMENT_TIMEOUT"),
        (postgres_connection, "CONNECT_TIMEOUT"),
        (postgres_reader, "ANSWER_TIMEOUT"),
    ):
        monkeypatch.setattr(module, name, TIMEOUT)
    monkeypatch.setattr(tailer_module, "RETRY_INTERVAL", POLL)
    settings = connections["default"].settings_dict
    parameters = connections["default"].get_connection_params()
    async with HangingServer(tmp_path, settings["HOST"], settings["PORT"]) as server:
        monkeypatch.setattr(
            connections["default"],
            "get_connection_params",
            lambda: {**parameters, "host": str(tmp_path), "application_name": "tailer"},
        )
        yield server


class Followed:
    """A tailer, the numbers of the events that it has delivered, and regular polls."""

    def __init__(self):
        self.numbers = []
        self.lost = 0
        self.reader = create_reader("default")
        self.tailer = LogTailer(
            "posts",
            self.reader,
            "default",
            deliver=lambda change: self.numbers.append(change.seq),
            on_position_lost=self._lose,
            announce=lambda event: None,
            is_complete=lambda change: True,
            restore=lambda changes: changes,
        )
        self._task = asyncio.create_task(self._poll())

    def _lose(self):
        self.lost += 1

    async def _poll(self):
        while True:
            await asyncio.sleep(POLL)
            try:
                if await self.reader.find_behind({"posts": self.tailer.position}):
                    self.tailer.notify()
            except Exception:
                pass

    async def wait_for(self, *numbers):
        async with asyncio.timeout(10):
            while self.numbers != list(numbers):
                await asyncio.sleep(0.01)

    async def stop(self):
        self._task.cancel()
        self.tailer.stop()
        self.reader.close()
        await asyncio.sleep(0.05)


@pytest.fixture
async def followed(server):
    await Stream.objects.acreate(collection="posts")
    followed = Followed()
    await followed.tailer.wait_caught_up()
    yield followed
    await followed.stop()
    assert followed.lost == 0


async def save():
    await LogEvent.objects.acreate(
        collection="posts", transaction_id="a", op="created", document_id="1", after="{}"
    )


def terminate():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE application_name = 'tailer' AND datname = current_database()"
        )
        assert cursor.fetchone() == (1,)


@pytest.mark.parametrize("notified", [True, False], ids=["notified", "polled"])
async def test_event_is_delivered_after_the_session_was_terminated(followed, notified):
    await save()
    await followed.wait_for(1)
    for number in range(2, 5):
        await sync_to_async(terminate)()
        await save()
        if notified:
            followed.tailer.notify()
        await followed.wait_for(*range(1, number + 1))


@pytest.mark.parametrize("fault", ["hang", "spoil", "disconnect"])
async def test_event_is_delivered_after_a_fault(followed, server, fault):
    await save()
    await followed.wait_for(1)
    for number in range(2, 4):
        opened = server.opened
        getattr(server, fault)()
        await save()
        followed.tailer.notify()
        if fault != "disconnect":
            await asyncio.sleep(3 * TIMEOUT)
            assert followed.numbers[-1] == number - 1
            server.recover()
        await followed.wait_for(*range(1, number + 1))
        assert server.opened > opened


async def test_connection_that_is_lost_while_idle_is_opened_by_the_next_poll(followed, server):
    await save()
    await followed.wait_for(1)
    opened = server.opened
    server.hang()
    await asyncio.sleep(3 * TIMEOUT)
    server.recover()
    await save()  # not notified
    await followed.wait_for(1, 2)
    assert server.opened > opened
    async with asyncio.timeout(5):
        while not followed.reader.is_leader("posts"):
            await asyncio.sleep(0.01)
