"""Statements that look for events without a number read no others, however large the log is.

PostgreSQL chooses an index by the statistics of the table. They are old here, as after a backlog
was numbered: they say that there is an event without a number wherever one looks.
"""

import pytest
from django.db import connection, connections, transaction

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.log import postgres_numbering, reader, sequencer
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.log.touched import read_touched
from tests.support import numbering

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connections["default"].vendor != "postgresql", reason="PostgreSQL"),
]
EVENTS, WAITING = 150_000, 1100
TABLE = "cocobase_realtime_logevent"


def execute(sql, parameters=()):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else None


@pytest.fixture
def waiting(db):
    """Fill the log, and return a function that leaves the last events without a number."""
    sequencer.sequence("default", "posts")
    execute(
        f"INSERT INTO {TABLE} (collection, transaction_id, op, document_id, created_at) "
        "SELECT 'posts', 't' || n / 5, 'created', n, now() FROM generate_series(1, %s) n",
        [EVENTS],
    )
    execute(f"ANALYZE {TABLE}")

    def leave(count):
        execute(
            f"UPDATE {TABLE} e SET seq = numbered.n FROM ("
            f"SELECT id, row_number() OVER (ORDER BY id) AS n FROM {TABLE}"
            ") numbered WHERE numbered.id = e.id AND numbered.n <= %s",
            [EVENTS - count],
        )
        execute("UPDATE cocobase_realtime_stream SET head = %s", [EVENTS - count])

    return leave


def rows_read(call):
    """Return how many rows of the log a call reads."""
    statement = (
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = %s"
    )
    with transaction.atomic():
        ((before,),) = execute(statement, [TABLE])
        call()
        ((after,),) = execute(statement, [TABLE])
    return after - before


def number_by_the_function():
    parameters = postgres_numbering.follow_parameters([("posts", None, None)])
    ((text,),) = numbering.execute(numbering.find_function().follow, parameters)
    (rows,) = postgres_numbering.decode_result(text).values()
    assert rows.head == EVENTS


def number_by_the_orm():
    assert sequencer.sequence("default", "posts", limit=1000).head == EVENTS


def positions():
    ((epoch, head),) = execute("SELECT epoch, head FROM cocobase_realtime_stream")
    return {"posts": Position(epoch, head)}


def find_behind():
    parameters = postgres_numbering.parameters(list(positions().items()))
    rows = numbering.execute(numbering.find_function().find_behind, parameters)
    return {name for (name,) in rows}


def streams_behind():
    return reader.streams_behind("default", positions())


@pytest.mark.parametrize("number", [number_by_the_function, number_by_the_orm])
@pytest.mark.parametrize("count", [3, WAITING])
def test_numbering_reads_the_events_without_a_number(waiting, number, count):
    waiting(count)
    assert rows_read(number) <= 10 * count


@pytest.mark.parametrize("count", [0, 3])
def test_looking_for_events_reads_no_others(waiting, count):
    waiting(count)
    assert rows_read(lambda: sequencer.has_unsequenced("default", "posts")) <= count
    assert rows_read(streams_behind) <= count
    assert rows_read(find_behind) <= count
    assert sequencer.has_unsequenced("default", "posts") == bool(count)
    assert streams_behind() == find_behind() == ({"posts"} if count else set())


@pytest.mark.parametrize("count", [0, 60])
def test_looking_for_touched_documents_reads_no_other_events(waiting, count):
    waiting(count)
    head = positions()["posts"]

    def read():
        position = Position(head.epoch, head.seq - behind)
        assert len(read_touched(registry.get("posts"), position).images) == count + behind

    for behind in (0, 7, 70):
        # a few, then the lengths of all, then those that are needed
        assert rows_read(read) <= 3 * (count + behind)
