"""The claims of the page on delivery about transactions."""

from contextlib import contextmanager

import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save, pre_save

from django_cocobase_realtime.models import LogEvent
from django_cocobase_realtime.testing import capture_events
from tests.app.models import Message

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _empty_log(transactional_db):
    """Remove what triggers logged when the tables of an earlier test were flushed."""
    LogEvent.objects.all().delete()


@contextmanager
def receiving(signal, receiver):
    signal.connect(receiver, sender=Message)
    try:
        yield
    finally:
        signal.disconnect(receiver, sender=Message)


@contextmanager
def manual_transactions():
    transaction.set_autocommit(False)
    try:
        yield
    except BaseException:
        transaction.rollback()
        raise
    finally:
        transaction.set_autocommit(True)


def logged():
    return list(LogEvent.objects.order_by("id").values_list("op", flat=True))


def test_receivers_of_an_autocommit_save_run_outside_of_its_transaction():
    seen = []

    def receiver(signal, **kwargs):
        with transaction.atomic(durable=True):
            seen.append((signal is post_save, logged()))

    with receiving(pre_save, receiver), receiving(post_save, receiver):
        Message.objects.create(text="x")
    assert seen == [(False, []), (True, ["created"])]


def test_exception_in_post_save_leaves_the_row_and_its_event():
    def receiver(**kwargs):
        raise RuntimeError

    expected = pytest.raises(RuntimeError)
    with capture_events() as events, receiving(post_save, receiver), expected:
        Message.objects.create(text="x")
    assert Message.objects.count() == 1
    assert [event.op for event in events] == ["created"]


def test_exception_in_pre_save_leaves_the_transaction_usable():
    def receiver(**kwargs):
        raise RuntimeError

    with transaction.atomic():
        with receiving(pre_save, receiver), pytest.raises(RuntimeError):
            Message.objects.create(text="x")
        Message.objects.create(text="y")
    assert logged() == ["created"]


def test_no_savepoint_is_made_in_the_transaction_of_the_project(django_assert_num_queries):
    with transaction.atomic(), django_assert_num_queries(3):
        message = Message.objects.create(text="x")
        message.save()
        Message.objects.update(text="y")
        assert connection.savepoint_ids == []
    assert logged() == ["created", "updated", "updated"]


def test_manual_transactions_commit_the_log_with_the_rows():
    with capture_events() as events, manual_transactions():
        Message.objects.create(text="rolled back")
        transaction.rollback()
        for text in ("x", "y"):
            Message.objects.create(text=text)
            transaction.commit()
        assert events == []  # announced when autocommit is switched on again
    assert logged() == ["created", "created"]
    assert [event.after["text"] for event in events] == ["x", "y"]
    assert len({event.transaction for event in events}) == 2


def test_atomic_block_after_a_manual_commit_is_another_transaction():
    with capture_events() as events, manual_transactions():
        Message.objects.create(text="x")
        transaction.commit()
        with transaction.atomic():
            Message.objects.create(text="y")
        transaction.commit()
    first, second = (event.transaction for event in events)
    assert first != second
