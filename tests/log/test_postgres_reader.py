"""The reader on the event loop: results, and what happens if the server is lost or hangs."""

import asyncio
import json
import os

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections

from django_cocobase_realtime.log import postgres_connection, postgres_numbering, postgres_reader
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.log.log_reader import create_reader
from django_cocobase_realtime.log.postgres_reader import PostgresReader
from django_cocobase_realtime.log.statements import array_text
from django_cocobase_realtime.log.thread_reader import ThreadReader
from django_cocobase_realtime.models import LogEvent, Stream
from tests.app.models import Post
from tests.support.hanging_server import HangingServer
from tests.support.triggers import installed_triggers

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connections["default"].vendor != "postgresql", reason="PostgreSQL"),
]
# methods of a connection that execute a statement
METHODS = ["fetch", "call"]


@pytest.fixture
async def reader(monkeypatch):
    """A reader, with the functions that were called in its thread."""
    calls = []
    run = ThreadReader.run

    async def record(self, function, *args, **kwargs):
        calls.append(function)
        return await run(self, function, *args, **kwargs)

    monkeypatch.setattr(ThreadReader, "run", record)
    reader = create_reader("default")
    assert type(reader) is PostgresReader
    reader.calls = calls
    yield reader
    reader.close()
    await asyncio.sleep(0.05)
    assert not reader._connection.is_open


def thread_calls(reader):
    functions = [getattr(call, "func", call) for call in reader.calls]
    return [f.__name__ for f in functions]


def log(transactions, collection="posts", **values):
    """Log one event for each name of a transaction, as transactions that were open together."""
    Stream.objects.get_or_create(collection=collection)
    for n, transaction in enumerate(transactions):
        LogEvent.objects.create(
            collection=collection,
            transaction_id=transaction,
            op="updated",
            document_id=f'"{n}é',
            **{"before": '{"n": 1}', "after": '{"n": "\\u0000é"}', "changed": '["n"]', **values},
        )


async def read(reader, seq=0, collection="posts"):
    """Return the events after the number ``seq``."""
    stream = await Stream.objects.aget(collection=collection)
    return await reader.fetch_new(collection, Position(stream.epoch, seq))


def watched_sockets():
    """Return the numbers of sockets that the event loop watches, and that are not open."""
    numbers = list(asyncio.get_running_loop()._selector.get_map())
    closed = []
    for number in numbers:
        try:
            os.fstat(number)
        except OSError:
            closed.append(number)
    return closed


@pytest.mark.parametrize("transactions", ["a", "abab", "aabbcc", "abcba"])
async def test_result_is_that_of_the_orm(reader, transactions):
    await sync_to_async(log)(transactions)
    by_function = await read(reader)
    assert thread_calls(reader) == []
    await LogEvent.objects.aupdate(seq=None)
    await Stream.objects.aupdate(head=0)
    thread = ThreadReader("default")
    by_orm = await read(thread)
    thread.close()
    assert by_function == by_orm
    assert (by_orm.start, by_orm.head, by_orm.more) == (0, len(transactions), False)


async def test_streams_that_are_read_at_the_same_time_are_read_by_one_call(reader, monkeypatch):
    for name in ("posts", "items"):
        await sync_to_async(log)("ab", name)
    calls = []
    call = reader._connection.call

    async def count(sql, params):
        calls.append(params)
        return await call(sql, params)

    monkeypatch.setattr(reader._connection, "call", count)
    await asyncio.gather(read(reader), read(reader, collection="items"))
    calls.clear()
    epochs = [s.epoch async for s in Stream.objects.order_by("collection")]
    batches = await asyncio.gather(
        reader.fetch_new("posts", Position(epochs[1], 1)),
        reader.fetch_new("items", Position(epochs[0], 0)),
    )
    assert [len(batch.changes) for batch in batches] == [1, 2]
    assert len(calls) == 1


async def test_position_in_another_epoch_gets_no_events(reader):
    await sync_to_async(log)("a")
    batch = await reader.fetch_new("posts", Position("other", 0))
    assert (batch.changes, batch.head, batch.start, batch.more) == ([], 1, 0, False)


async def test_stream_is_created_by_the_thread(reader):
    assert (await reader.fetch_new("posts", None)).head == 0
    assert thread_calls(reader) == ["fetch_new"]
    reader.calls.clear()
    assert (await reader.fetch_new("posts", None)).head == 0
    assert thread_calls(reader) == []


async def test_backlog_is_numbered_in_batches(reader, monkeypatch):
    monkeypatch.setattr(postgres_numbering, "PAGE_EVENTS", 5)
    monkeypatch.setattr(postgres_numbering, "BACKLOG_EVENTS", 10)
    await sync_to_async(log)([str(n // 3) for n in range(35)])
    first = await read(reader)
    assert (first.start, first.head, first.more) == (0, 9, True)  # whole transactions
    assert [change.seq for change in first.changes] == [1, 2, 3, 4, 5]
    without_position = await reader.fetch_new("posts", None)
    assert (without_position.head, without_position.more) == (18, True)
    while (await reader.fetch_new("posts", None)).more:
        pass
    numbers = LogEvent.objects.order_by("id").values_list("seq", flat=True)
    assert [n async for n in numbers] == list(range(1, 36))


async def test_pages_are_limited_in_bytes(reader, monkeypatch):
    monkeypatch.setattr(postgres_numbering, "PAGE_BYTES", 5000)
    await sync_to_async(log)("abc", after=json.dumps({"n": "x" * 4000}))
    first = await read(reader)
    assert ([change.seq for change in first.changes], first.more) == ([1, 2], True)
    second = await read(reader, 2)
    assert ([change.seq for change in second.changes], second.more) == ([3], False)


async def test_damaged_event_does_not_stop_the_stream(reader):
    await sync_to_async(log)("a", after="{damaged")
    await sync_to_async(log)("b")
    changes = (await read(reader)).changes
    assert [change.after for change in changes] == [{}, {"n": "\0é"}]


async def test_serializer_is_called(reader, settings):
    posts = {"model": "app.Post", "serializer": lambda post: {"shown": post.title}}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": posts}}
    await Post.objects.acreate(title="a")
    await sync_to_async(Stream.objects.get_or_create)(collection="posts")
    assert [change.document for change in (await read(reader)).changes] == [{"shown": "a"}]


async def test_images_of_triggers_are_converted(reader, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "capture": "triggers"}}
    }
    await sync_to_async(Stream.objects.get_or_create)(collection="posts")
    triggers = installed_triggers()
    await sync_to_async(triggers.__enter__)()
    try:
        await Post.objects.acreate(title="a")
    finally:
        await sync_to_async(triggers.__exit__)(None, None, None)
    (change,) = (await read(reader)).changes
    assert change.after["title"] == "a"
    assert thread_calls(reader) == ["changes_from_rows"]


async def test_isolation_level_is_read_committed(reader, monkeypatch):
    """In another one, the function would not see what the holder of a lock has numbered."""
    options = {"options": "-c default_transaction_isolation=serializable"}
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)
    await reader.fetch_new("posts", None)
    assert await reader._connection.fetch("SHOW transaction_isolation") == [("read committed",)]


async def test_function_in_another_schema_is_called(reader):
    """The path that Django's connection searches may be set by the project."""
    await reader.fetch_new("posts", None)
    sql = await postgres_numbering.find_function(reader._connection.fetch)
    assert sql.follow.startswith("SELECT public.cocobase_realtime_follow(")


@pytest.mark.parametrize("reason", [postgres_reader.NOT_INSTALLED, postgres_reader.POOLED])
async def test_thread_is_used(reader, reason, monkeypatch, caplog):
    caplog.set_level("INFO", "django_cocobase_realtime")
    if reason == postgres_reader.NOT_INSTALLED:
        monkeypatch.setattr(postgres_numbering, "_SIGNATURE", "not_installed()")
    else:
        monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 1)
    await sync_to_async(log)("ab")
    assert [change.seq for change in (await read(reader)).changes] == [1, 2]
    stream = await Stream.objects.aget()
    assert await reader.find_behind({"posts": Position(stream.epoch, 1)}) == {"posts"}
    assert thread_calls(reader) == ["fetch_new", "streams_behind"]
    assert not reader._connection.is_open
    assert reader.is_leader("posts") is None
    reader._use_thread_until = 0  # tried again later
    await read(reader)
    (message,) = caplog.messages
    assert message.endswith(f"by the ORM, in a thread, because {reason}.")
    monkeypatch.undo()
    reader._use_thread_until = 0
    reader.calls.clear()
    await read(reader)
    assert thread_calls(reader) == []
    assert "by a function" in caplog.messages[-1]


def test_pool_of_django_is_not_bypassed(monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", {"pool": True})
    reader = create_reader("default")
    assert type(reader) is ThreadReader
    reader.close()


async def test_connection_has_the_parameters_of_django(monkeypatch):
    options = {"sslmode": "allow", "connect_timeout": 3, "application_name": "realtime"}
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)
    connection = postgres_connection.PostgresConnection("default")
    await connection.open()
    parameters = connection._connection.info.get_parameters()
    assert {name: parameters[name] for name in options} == {
        name: str(value) for name, value in options.items()
    }
    assert parameters["tcp_user_timeout"] == "10000"
    connection.drop()


async def terminate(reader):
    """Terminate the session of the reader's connection."""

    def execute():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    ((pid,),) = await reader._connection.fetch("SELECT pg_backend_pid()")
    await sync_to_async(execute)()


async def test_texts_of_arrays(reader):
    await reader.fetch_new("posts", None)
    await reader.fetch_new("posts", None)
    for values in (
        [],
        ["", None, 5, "NULL", "a b", '"\\', "{a,b}", "é\n'", "%s $1"],
        [f"{'x' * 100}{n}" for n in range(50_000)],  # more than the buffer of the socket
    ):
        text = await reader._connection.call(
            "SELECT array_to_json($1::text[])::text", [array_text(values)]
        )
        assert json.loads(text) == [None if v is None else str(v) for v in values]
    assert watched_sockets() == []


async def test_cancelled_call_closes_the_connection(reader):
    await reader.fetch_new("posts", None)
    await reader.fetch_new("posts", None)
    task = asyncio.ensure_future(reader._connection.call("SELECT pg_sleep(30)", []))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not reader._connection.is_open
    assert watched_sockets() == []
    assert (await reader.fetch_new("posts", None)).head == 0


async def test_lost_connection_is_opened_again(reader):
    await sync_to_async(log)("a")
    assert (await read(reader)).head == 1
    await terminate(reader)
    await sync_to_async(log)("b")
    assert [change.seq for change in (await read(reader, 1)).changes] == [2]
    assert watched_sockets() == []


@pytest.mark.parametrize("method", METHODS)
async def test_session_is_terminated_during_a_call(reader, method):
    await sync_to_async(log)("a")
    await read(reader)
    task = asyncio.ensure_future(getattr(reader._connection, method)("SELECT pg_sleep(30)", []))
    await asyncio.sleep(0.1)

    def execute():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE query LIKE %s AND pid <> pg_backend_pid()",
                ["SELECT pg_sleep(30)%"],
            )

    await sync_to_async(execute)()
    with pytest.raises(psycopg.OperationalError):
        await task
    assert watched_sockets() == []
    assert (await read(reader)).head == 1


@pytest.mark.parametrize("method", METHODS)
async def test_statement_timeout_of_the_project_applies(reader, monkeypatch, method):
    monkeypatch.setitem(
        connections["default"].settings_dict, "OPTIONS", {"options": "-c statement_timeout=1000"}
    )
    await reader.fetch_new("posts", None)
    await reader.fetch_new("posts", None)
    with pytest.raises(psycopg.errors.QueryCanceled):
        await getattr(reader._connection, method)("SELECT pg_sleep(5)", [])
    assert (await reader.fetch_new("posts", None)).head == 0


@pytest.mark.parametrize("method", METHODS)
async def test_close_ends_a_call(reader, method):
    await reader.fetch_new("posts", None)
    await reader.fetch_new("posts", None)
    task = asyncio.ensure_future(getattr(reader._connection, method)("SELECT pg_sleep(6)", []))
    await asyncio.sleep(0.1)
    reader._connection.close()
    with pytest.raises(psycopg.OperationalError):
        await asyncio.wait_for(task, 2)
    assert watched_sockets() == []


@pytest.mark.parametrize("method", METHODS)
async def test_reader_is_closed_during_a_statement(reader, method):
    """As by a poll. The next connection may get the number of its socket."""
    await reader.fetch_new("posts", None)
    await reader.fetch_new("posts", None)
    task = asyncio.ensure_future(getattr(reader._connection, method)("SELECT pg_sleep(6)", []))
    await asyncio.sleep(0.1)
    reader.close()
    with pytest.raises(psycopg.OperationalError):
        await asyncio.wait_for(task, 2)
    assert watched_sockets() == []


@pytest.fixture
async def server(monkeypatch, tmp_path):
    settings = connections["default"].settings_dict
    async with HangingServer(tmp_path, settings["HOST"], settings["PORT"]) as server:
        monkeypatch.setitem(settings, "HOST", str(tmp_path))
        yield server


async def test_hanging_server_is_given_up(server, reader, monkeypatch):
    monkeypatch.setattr(postgres_connection, "STATEMENT_TIMEOUT", 0.3)
    monkeypatch.setattr(postgres_connection, "CONNECT_TIMEOUT", 0.3)
    await reader.fetch_new("posts", None)
    await reader.fetch_new("posts", None)
    opened = server.opened
    server.hang()
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await reader.fetch_new("posts", None)
        with pytest.raises(TimeoutError):  # to connect
            await reader.fetch_new("posts", None)
    assert watched_sockets() == []
    server.recover()
    assert (await reader.fetch_new("posts", None)).head == 0
    assert server.opened > opened
