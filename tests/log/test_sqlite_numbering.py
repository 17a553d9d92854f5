"""Numbering by one statement on SQLite gives what numbering by the ORM gives."""

import pytest
from django.db import connection, connections

from django_cocobase_realtime.log import sqlite_numbering
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent, Stream

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connections["default"].vendor != "sqlite", reason="statements for SQLite"),
]


def log(transactions, **values):
    """Log one event for each name of a transaction, as transactions that were open together."""
    for n, transaction in enumerate(transactions):
        LogEvent.objects.create(
            collection="posts",
            transaction_id=transaction,
            op="updated",
            document_id=str(n),
            **{"before": '{"n": 1}', "after": '{"n": 2}', "changed": '["n"]', **values},
        )


def number(monkeypatch, *, by_orm):
    """Number all events; return what is known of each, and the result's other values."""
    if by_orm:
        monkeypatch.setattr(sqlite_numbering, "is_supported", lambda connection: False)
    result = sequence("default", "posts")
    stored = LogEvent.objects.order_by("seq").values_list("seq", "document_id")
    assert list(stored) == [(change.seq, change.document_id) for change in result.changes]
    return result


@pytest.mark.parametrize("transactions", ["a", "abab", "aabbcc", "abcba", "cba"])
@pytest.mark.parametrize("use_tz", [True, False])
def test_result_is_that_of_the_orm(transactions, use_tz, settings, monkeypatch):
    settings.USE_TZ = use_tz
    connections.close_all()  # the converters of the driver depend on the setting
    sequence("default", "posts")
    log(transactions)
    one_statement = number(monkeypatch, by_orm=False)
    LogEvent.objects.update(seq=None)
    Stream.objects.update(head=0)
    by_orm = number(monkeypatch, by_orm=True)
    assert one_statement == by_orm
    assert one_statement.head == len(transactions)


def test_text_that_is_not_utf8_is_replaced():
    sequence("default", "posts")
    log("a")
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {LogEvent._meta.db_table} SET "
            "document_id = CAST(x'61ff' AS TEXT), after = CAST(x'7b226e223a2022ff227d' AS TEXT)"
        )
    (change,) = sequence("default", "posts").changes
    assert (change.document_id, change.after) == ("a\ufffd", {"n": "\ufffd"})


def count_statements():
    """Return the number of statements that number the events, without BEGIN and COMMIT."""
    statements = []

    def record(execute, sql, *args):
        statements.append(sql)
        return execute(sql, *args)

    with connection.execute_wrapper(record):
        assert sequence("default", "posts").changes
    return len([sql for sql in statements if sql.startswith(("SELECT", "UPDATE", "INSERT"))])


def test_pass_takes_three_statements():
    sequence("default", "posts")
    log("ab")
    assert count_statements() == 3


@pytest.mark.parametrize(("transactions", "limit"), [("aabb", 3), (["", "a"], 10)])
def test_orm_numbers_what_one_statement_cannot(transactions, limit):
    """A backlog is numbered in batches; transactions without an id get one each."""
    sequence("default", "posts")
    log(transactions)
    assert sqlite_numbering.number_rows("default", "posts", limit) is None
    assert not LogEvent.objects.exclude(seq=None).exists()
    assert sequence("default", "posts", limit).head == len(transactions)
    assert not LogEvent.objects.filter(transaction_id="").exists()
