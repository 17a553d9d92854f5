"""SQLite locks: a captured write waits for other writers as Django's own writes do."""

import threading

import pytest
from django.db import connection, connections, transaction

from tests.app.models import Item, Post, Tag

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL locks rows."),
]


def save(post):
    post.title += "x"
    post.save()


def update_all(post):
    Item.objects.update(size=1)


def create_or_update(post):
    Item.objects.bulk_create(
        [Item(name="i", size=2)],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["size"],
    )


def delete_all(post):
    Item.objects.filter(name="i")._raw_delete("default")


def clear_tags(post):
    post.tags.clear()


WRITES = [save, update_all, create_or_update, delete_all, clear_tags]


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
def test_write_at_start_of_transaction_waits_for_other_writer(write):
    """A transaction that has read before it writes would fail at once with "database is locked"."""
    post = Post.objects.create(title="p")
    post.tags.add(Tag.objects.create(name="t"))
    Item.objects.create(name="i")
    failures, started = [], threading.Event()

    def other_writer():
        try:
            with transaction.atomic():
                Tag.objects.create(name="held")  # takes the write lock
                started.set()
                release.wait(1)
        finally:
            connections.close_all()

    def writer():
        try:
            with transaction.atomic():
                write(post)
        except Exception as error:
            failures.append(error)
        finally:
            connections.close_all()

    release = threading.Event()
    threads = [threading.Thread(target=other_writer), threading.Thread(target=writer)]
    threads[0].start()
    assert started.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_saves_in_one_transaction_take_the_lock_once():
    posts = [Post.objects.create(title=str(n)) for n in range(3)]
    statements = []
    connection.ensure_connection()
    connection.connection.set_trace_callback(statements.append)
    try:
        with transaction.atomic():
            for post in posts:
                post.save()
    finally:
        connection.connection.set_trace_callback(None)
    # the lock once; then each save: the row before, the update, the log
    assert [s.split(maxsplit=1)[0] for s in statements] == [
        "BEGIN",
        "UPDATE",
        *["SELECT", "UPDATE", "INSERT"] * 3,
        "COMMIT",
    ]
