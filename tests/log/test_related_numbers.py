"""The number in the hidden stream that an event gets: that of all changes committed before it.

Writers change a table that permissions depend on, and then a row that these permissions show.
Processes number both streams at the same time, in all ways.
"""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest
from django.db import connection, connections, transaction

from django_cocobase_realtime.declarations.dependency_table import hidden_stream
from django_cocobase_realtime.events import Change, decode, encode
from django_cocobase_realtime.log import postgres_numbering, sequencer, sqlite_numbering
from django_cocobase_realtime.log.reader import read_events
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent, Stream
from tests.support import numbering

pytestmark = pytest.mark.django_db(transaction=True)
on_postgresql = pytest.mark.skipif(
    connections["default"].vendor != "postgresql", reason="its transactions write concurrently"
)
HIDDEN = hidden_stream("default")
SECONDS = 2.5
WRITERS = 4


@pytest.fixture(autouse=True)
def _collections(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "depends_on": ["app.Author"]},
            "items": "app.Item",
        }
    }


@pytest.fixture
def _streams():
    for name in ("posts", "items", HIDDEN):
        Stream.objects.create(collection=name)


def log(stream, *ids, transaction_id="t"):
    LogEvent.objects.bulk_create(
        LogEvent(
            collection=stream,
            transaction_id=transaction_id,
            op="created",
            document_id=str(id),
            after="{}",
        )
        for id in ids
    )


def log_pair(key):
    """Commit a change of the hidden stream, and then one of the shown stream."""
    log(HIDDEN, key, transaction_id=f"hidden {key}")
    log("posts", key, transaction_id=f"shown {key}")


def in_thread(function, *args):
    """Call a function by a connection of its own."""

    def call():
        try:
            return function(*args)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


def call_function(*names):
    """Number streams by the function; return the result by stream."""
    requests = [(name, None, sequencer.related_stream("default", name)) for name in names]
    parameters = postgres_numbering.follow_parameters(requests)
    ((text,),) = numbering.execute(numbering.find_function().follow, parameters)
    return postgres_numbering.decode_result(text)


def number_by_the_orm():
    return sequence("default", "posts", limit=5).more


def number_by_the_function():
    return call_function("posts")["posts"].unfinished


WAYS = [pytest.param(number_by_the_orm, id="orm")]
if connection.vendor == "postgresql":
    WAYS.append(pytest.param(number_by_the_function, id="function"))


def pairs():
    """Return the numbers in the hidden stream, and what the shown events need, by document."""
    hidden = dict(LogEvent.objects.filter(collection=HIDDEN).values_list("document_id", "seq"))
    shown = LogEvent.objects.filter(collection="posts", seq__isnull=False)
    return [(hidden[id], needed) for id, needed in shown.values_list("document_id", "related_seq")]


def check_pairs():
    """Assert that no event may be delivered before the change that preceded it."""
    compared = pairs()
    assert all(number is not None and number <= needed for number, needed in compared)
    return len(compared)


class Racers:
    """Threads that write pairs and number them, until the time is over."""

    def __init__(self, numberers, seed):
        self._ends_at = time.monotonic() + SECONDS
        self.errors = []
        works = [(self._write, n, seed) for n in range(WRITERS)]
        works += [(self._number, function, n, seed) for n, function in enumerate(numberers)]
        self._threads = [threading.Thread(target=self._run, args=work) for work in works]
        for thread in self._threads:
            thread.start()

    def join(self):
        for thread in self._threads:
            thread.join()
        assert self.errors == []

    def _run(self, work, *args):
        try:
            work(*args)
        except Exception as error:
            self.errors.append(error)
        finally:
            connections.close_all()

    def _write(self, writer, seed):
        choose = random.Random(f"{seed} writer {writer}")
        count = 0
        while time.monotonic() < self._ends_at:
            count += 1
            key = f"{writer}:{count}"
            if choose.random() < 0.2:
                with transaction.atomic():
                    log("posts", key, transaction_id=f"both {key}")
                    log(HIDDEN, key, transaction_id=f"both {key}")
            else:
                log_pair(key)
            time.sleep(choose.random() * 0.002)

    def _number(self, function, number, seed):
        choose = random.Random(f"{seed} numberer {number}")
        while time.monotonic() < self._ends_at:
            function()
            time.sleep(choose.random() * 0.003)


def number_the_hidden_stream():
    sequence("default", HIDDEN)


def number_together():
    call_function("posts", "items", HIDDEN)


@pytest.mark.usefixtures("_streams")
def test_processes_that_race_stamp_each_event_with_what_was_committed_before():
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    numberers = [lambda: sequence("default", "posts"), number_by_the_orm, number_the_hidden_stream]
    if connection.vendor == "postgresql":
        numberers += [number_by_the_function, number_together]
    Racers(numberers, seed).join()
    while number_by_the_orm():
        pass
    assert check_pairs() > 100
    for stream in ("posts", HIDDEN):
        numbers = list(
            LogEvent.objects.filter(collection=stream).order_by("seq").values_list("seq", flat=True)
        )
        assert numbers == list(range(1, len(numbers) + 1))


@on_postgresql
@pytest.mark.usefixtures("_streams")
def test_pair_that_is_committed_while_the_orm_numbers(monkeypatch):
    """The events that are read first are numbered last."""
    log_pair("before")
    read, keys = sequencer._events_to_number, iter("abc")

    def read_and_write(*args):
        rows = read(*args)
        in_thread(log_pair, next(keys))
        return rows

    monkeypatch.setattr(sequencer, "_events_to_number", read_and_write)
    sequence("default", "posts")
    monkeypatch.undo()
    assert pairs() == [(1, 2)]  # that of "a" is in the hidden stream; its own event waits
    sequence("default", "posts")
    assert check_pairs() == 3


@on_postgresql
@pytest.mark.usefixtures("_streams")
def test_pair_that_is_committed_while_the_function_numbers():
    migration = import_module("django_cocobase_realtime.migrations.0009_related_numbers")
    reads = "            ids := ids || stream_events;\n"
    assert reads in migration.FUNCTION
    slow = migration.FUNCTION.replace(reads, reads + "            PERFORM pg_sleep(0.4);\n")
    log_pair("before")
    try:
        with connection.cursor() as cursor:
            cursor.execute(slow.replace("__schema__", "public"))
        with ThreadPoolExecutor(1) as thread:
            numbered = thread.submit(in_thread, call_function, HIDDEN, "posts")
            time.sleep(0.2)
            log_pair("a")
            numbered.result()
    finally:
        with connection.schema_editor() as editor:
            migration.install(None, editor)
    assert pairs() == [(1, 2)]
    call_function("posts")
    assert check_pairs() == 2


@pytest.mark.parametrize("number", WAYS)
@pytest.mark.usefixtures("_streams")
def test_events_wait_while_the_hidden_stream_has_a_backlog(monkeypatch, number):
    """They are numbered by the call that numbers the last events of the hidden stream."""
    monkeypatch.setattr(sequencer, "BACKLOG_BATCH_SIZE", 10)
    monkeypatch.setattr(postgres_numbering, "PAGE_EVENTS", 5)
    monkeypatch.setattr(postgres_numbering, "BACKLOG_EVENTS", 10)
    for key in range(30):
        log(HIDDEN, key, transaction_id=f"hidden {key}")
    log("posts", "0", "29")
    assert number()
    assert not LogEvent.objects.filter(collection="posts", seq__isnull=False).exists()
    while number():
        pass
    assert pairs() == [(1, 30), (30, 30)]


@pytest.mark.parametrize("number", WAYS)
@pytest.mark.usefixtures("_streams")
def test_other_streams_get_no_number_of_the_hidden_one(number):
    log_pair("a")
    log("items", "a")
    if number is number_by_the_orm:
        sequence("default", "items")
        sequence("default", "posts")
    else:
        call_function("items", "posts", HIDDEN)
    stamps = LogEvent.objects.order_by("collection").values_list("collection", "related_seq")
    assert list(stamps) == [(HIDDEN, None), ("items", None), ("posts", 1)]


@pytest.mark.usefixtures("_streams")
def test_hidden_stream_is_not_numbered_without_an_event_that_needs_it():
    log(HIDDEN, "a")
    assert sequence("default", "posts").head == 0
    assert sequence("default", "items").head == 0
    if connection.vendor == "postgresql":
        call_function("posts", "items")
    assert Stream.objects.get(collection=HIDDEN).head == 0


@pytest.mark.parametrize("number", WAYS)
def test_hidden_stream_is_created_by_the_orm(number):
    """The function leaves out what it cannot stamp."""
    Stream.objects.create(collection="posts")
    log_pair("a")
    if number is number_by_the_function:
        assert call_function("posts") == {}
    sequence("default", "posts")
    assert pairs() == [(1, 1)]


@pytest.mark.parametrize("one_statement", [True, False])
@pytest.mark.usefixtures("_streams")
def test_numbered_and_read_events_have_the_number(monkeypatch, one_statement):
    if not one_statement:
        monkeypatch.setattr(sqlite_numbering, "is_supported", lambda connection: False)
    log_pair("a")
    log_pair("b")
    result = sequence("default", "posts")
    assert [change.related_seq for change in result.changes] == [2, 2]
    assert read_events("default", "posts", result.epoch, 0, 10) == result.changes


def test_change_of_an_older_version_is_decoded():
    """Processes of both versions run side by side while a project is deployed."""
    change = Change("1", "posts", "created", "1", "t", "", epoch="e", seq=1)
    assert b"related_seq" not in encode(change)
    assert decode(encode(change)).related_seq is None
