"""Transactions that write different tables of a multi-table row at the same time."""

import threading

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection, transaction

from django_cocobase_realtime.capture import concurrency
from django_cocobase_realtime.models import Stream
from tests.capture_app.models import Bug, Task, UrgentBug
from tests.support.interleaving import interleave
from tests.support.watching import (
    assert_log_gives_tables,
    clear_tables,
    forget_logged,
    logged,
    watching,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer."),
]


def create():
    clear_tables()
    bug = Bug.objects.create(title="a")
    forget_logged()
    return bug


def write_both(bug, order="12"):
    _, errors = interleave(
        [lambda: Bug.objects.filter(pk=bug.pk).update(severity=3)],
        [lambda: Task.objects.filter(pk=bug.pk).update(title="c")],
        order,
    )
    assert errors == [None, None]


@pytest.mark.parametrize("options", [{}, {"track": False}], ids=["tracked", "untracked"])
@pytest.mark.parametrize("order", ["12", "21"])
def test_last_transaction_records_the_row_as_it_is(order, options):
    with watching(Bug, **options):
        write_both(create(), order)
        changes = logged()
        images = [(change.after["title"], change.after["severity"]) for change in changes]
        assert sorted(images[:2]) == [("a", 3), ("c", 0)]
        # both transactions record the row again if they end at the same time
        assert images[2:] in ([("c", 3)] * 2, [("c", 3)] * 4)
        if not options:
            befores = [(change.before["title"], change.before["severity"]) for change in changes]
            assert set(befores[2:]) == {("a", 3), ("c", 0)}


def test_transactions_after_each_other_record_each_change_once():
    with watching(Bug):
        bug = create()
        for title in "bc":
            Task.objects.filter(pk=bug.pk).update(title=title)
            Bug.objects.filter(pk=bug.pk).update(severity=3)
            bug.save(update_fields=["severity"])
        with transaction.atomic():
            Task.objects.update(title="d")
            Bug.objects.update(severity=5)
            Task.objects.update(title="e")
        assert len(logged()) == 9
        assert [change.op for change in logged()] == ["updated"] * 9


def test_row_that_is_deleted_in_the_same_transaction_is_deleted_once():
    with watching(Bug, UrgentBug):
        UrgentBug.objects.create(title="a")
        with transaction.atomic():
            Task.objects.update(title="b")
            Bug.objects.all().delete()
        assert [change.op for change in logged("bug")] == ["created", "updated", "deleted"]
        assert_log_gives_tables()


def test_row_that_another_transaction_deleted_first_is_deleted():
    is_deleted, may_commit = threading.Event(), threading.Event()

    def delete(bug):
        with transaction.atomic():
            Bug.objects.get(pk=bug.pk).delete(keep_parents=True)
            is_deleted.set()
            may_commit.wait(10)
        connection.close()

    with watching(Bug):
        bug = create()
        thread = threading.Thread(target=delete, args=(bug,))
        thread.start()
        assert is_deleted.wait(10)
        with transaction.atomic():
            Task.objects.filter(pk=bug.pk).update(title="c")
            may_commit.set()
            thread.join(10)
        assert [change.op for change in logged()] == ["deleted", "updated", "deleted"]


def test_rows_that_a_third_transaction_has_locked_make_clients_fetch_again(monkeypatch):
    def refuse(*args, **options):
        raise OperationalError("lock timeout")

    monkeypatch.setattr(concurrency, "lock_rows", refuse)
    with watching(Bug):
        bug = create()
        Stream.objects.create(collection="bug")
        epoch = Stream.objects.get().epoch
        write_both(bug)
        assert len(logged()) == 2
        assert Stream.objects.get().epoch != epoch


async def test_filters_are_decided_by_the_row_as_it_is(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"bug": "capture_app.Bug"}}
    bug = await sync_to_async(create)()
    filters = {
        "old": {"title": "a", "severity": 0},
        "first": {"title": "a", "severity": 3},
        "second": {"title": "c", "severity": 0},
        "both": {"title": "c", "severity": 3},
    }
    async with realtime(token=api_key) as client:
        for name, by in filters.items():
            await client.subscribe("bug", subscription=name, filters=by, transitions=True)
        await sync_to_async(write_both)(bug)
        last = {}
        while "both" not in last or not await client.receive_nothing(0.5):
            event = await client.receive("event")
            last |= dict.fromkeys(event["subscriptions"], event["event"])
    assert last.pop("both") in ("entered", "updated")
    assert last == {"old": "left", "first": "left", "second": "left"}
