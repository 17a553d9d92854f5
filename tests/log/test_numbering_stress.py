"""Processes that number the same stream, while writers roll back and processes are killed.

Runs for a few seconds, or as many as ``STRESS_SECONDS`` says.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import psycopg
import pytest
from django.db import connections

from django_cocobase_realtime.models import LogEvent, Stream

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connections["default"].vendor != "postgresql", reason="PostgreSQL"),
]
SECONDS = float(os.environ.get("STRESS_SECONDS", "3"))
WRITERS, ROWS = 4, 8
ROOT = Path(__file__).parents[2]
INSERT = (
    "INSERT INTO cocobase_realtime_logevent "
    "(collection, transaction_id, op, document_id, after, created_at) VALUES "
    "('posts', pg_current_xact_id()::text, 'updated', %s, %s, clock_timestamp())"
)


def connect():
    parameters = connections["default"].get_connection_params()
    for name in ("context", "cursor_factory", "prepare_threshold"):
        parameters.pop(name)
    return psycopg.connect(**parameters, autocommit=True)


class Writers:
    """Threads that change rows and log the changes, in transactions of several kinds."""

    def __init__(self):
        self.committed = 0
        self.rolled_back = 0
        self._ends_at = time.monotonic() + SECONDS
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def join(self):
        for thread in self._threads:
            thread.join()

    def _write(self, number):
        choose = random.Random(number)
        with connect() as database:
            while time.monotonic() < self._ends_at:
                if self._write_transaction(database, choose):
                    self.committed += 1
                else:
                    self.rolled_back += 1

    def _write_transaction(self, database, choose):
        database.execute("BEGIN")
        # rows are locked in one order, so that there is no deadlock
        for row in sorted(choose.choices(range(ROWS), k=choose.choice((1, 1, 2, 3, 5)))):
            database.execute("SAVEPOINT one")
            (version,) = database.execute(
                "UPDATE stress_row SET version = version + 1 WHERE id = %s RETURNING version", [row]
            ).fetchone()
            database.execute(INSERT, [str(row), json.dumps({"version": version})])
            if choose.random() < 0.1:
                database.execute("ROLLBACK TO one")
            if choose.random() < 0.05:
                time.sleep(choose.random() * 0.01)
        commits = choose.random() < 0.75
        database.execute("COMMIT" if commits else "ROLLBACK")
        return commits


class NumberingProcess:
    """A process of `tests.support.numbering_process`, with the lines that it has written."""

    def __init__(self, path):
        self.path = path
        settings = dict(connections["default"].settings_dict)
        databases = {"default": settings, "other": connections["other"].settings_dict}
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "REALTIME_TEST_DATABASES": json.dumps(databases, default=str),
        }
        with path.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.numbering_process"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
            )

    def lines(self):
        return self.path.read_text().splitlines()

    def wait_for(self, condition):
        deadline = time.monotonic() + 60
        while not condition(self.lines()):
            assert self._process.poll() is None, "The process has ended."
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def is_leader(self):
        return is_leader(self.lines())

    def kill(self):
        self._process.kill()
        self._process.communicate()

    def finish(self):
        """Let the process read what is left; raise if it has failed."""
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0

    def seen(self):
        """Return the (number, id) of each event that the process has read."""
        pairs = [line.split() for line in self.lines()]
        return [(int(pair[0]), pair[1]) for pair in pairs if pair and pair[0].isdecimal()]


def is_ready(lines):
    return "ready" in lines


def is_leader(lines):
    """Return whether a process that has written these lines is the leader."""
    return [line for line in lines if line in ("leader", "follower")][-1:] == ["leader"]


def terminate_a_session():
    """Terminate the session of a process that numbers."""
    with connect() as database:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND datname = current_database() "
            "AND (query LIKE '%cocobase_realtime_follow%' OR query LIKE 'SELECT f.name FROM %') "
            "ORDER BY random() LIMIT 1"
        )


@pytest.fixture
def _rows():
    with connect() as database:
        database.execute("CREATE TABLE stress_row (id integer PRIMARY KEY, version integer)")
        database.execute("INSERT INTO stress_row SELECT n, 0 FROM generate_series(0, 7) n")
        yield
        database.execute("DROP TABLE stress_row")


@pytest.mark.timeout(SECONDS * 3 + 240)
@pytest.mark.usefixtures("_rows")
def test_processes_that_race_number_each_event_once_and_in_order(tmp_path):
    Stream.objects.create(collection="posts")
    processes = [NumberingProcess(tmp_path / "0")]
    processes[0].wait_for(is_leader)
    processes.append(NumberingProcess(tmp_path / "1"))
    for process in processes:
        process.wait_for(is_ready)
    assert not processes[1].is_leader()
    writers = Writers()
    began = time.monotonic()
    time.sleep(SECONDS / 3)
    terminate_a_session()
    time.sleep(SECONDS / 6)
    leader, follower = sorted(processes, key=NumberingProcess.is_leader, reverse=True)
    leader.kill()
    follower.wait_for(is_leader)
    while time.monotonic() - began < SECONDS:
        time.sleep(0.3)
        terminate_a_session()
    writers.join()
    follower.finish()
    assert writers.committed
    assert writers.rolled_back
    events = list(
        LogEvent.objects.order_by("seq").values_list(
            "seq", "id", "transaction_id", "document_id", "after"
        )
    )
    check_numbers(events)
    numbers = [(seq, str(id)) for seq, id, *_ in events]
    assert follower.seen() == numbers
    # the last line of a process that was killed may be incomplete
    seen = leader.seen()[:-1]
    assert seen
    assert seen == numbers[: len(seen)]


def check_numbers(events):
    """Assert that numbers are dense, that rows keep their order, and transactions are together."""
    assert [seq for seq, *_ in events] == list(range(1, len(events) + 1))
    assert Stream.objects.get().head == len(events)
    transactions = [transaction for _, _, transaction, *_ in events]
    runs = [
        t for t, previous in zip(transactions, [None, *transactions], strict=False) if t != previous
    ]
    assert len(runs) == len(set(runs))
    versions = defaultdict(list)
    for *_, row, after in events:
        versions[int(row)].append(json.loads(after)["version"])
    with connect() as database:
        rows = dict(database.execute("SELECT id, version FROM stress_row").fetchall())
    for row, version in rows.items():
        assert versions[row] == list(range(1, version + 1))
