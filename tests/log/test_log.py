"""The log: sequence numbers without gaps, order of changes, retention, epochs, cursors."""

import asyncio
import threading
from datetime import timedelta

import pytest
from django.db import connection, connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_cocobase_realtime.hub import background_tasks
from django_cocobase_realtime.log.cursor import InvalidCursor, Position, decode, encode
from django_cocobase_realtime.log.reader import fetch_new, stream_ranges, streams_behind
from django_cocobase_realtime.log.retention import rotate_epoch, trim
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent
from tests.app.models import Author, Post
from tests.support.log import read_all

pytestmark = pytest.mark.django_db(transaction=True)


def test_event_is_stored_only_if_its_transaction_commits():
    with pytest.raises(KeyError), transaction.atomic():
        Post.objects.create(title="never")
        raise KeyError
    assert not LogEvent.objects.exists()
    with transaction.atomic():
        Post.objects.create(title="a")
        with pytest.raises(KeyError), transaction.atomic():
            Post.objects.create(title="never")
            raise KeyError
        Post.objects.create(title="b")
    assert [e.after["title"] for e in read_all()] == ["a", "b"]


def test_sequence_numbers_have_no_gaps():
    with transaction.atomic():
        for n in range(5):
            Post.objects.create(title=f"one {n}")
    for n in range(3):
        Post.objects.create(title=f"single {n}")
    events = read_all()
    assert [e.seq for e in events] == list(range(1, 9))
    assert len({e.transaction for e in events[:5]}) == 1
    assert len({e.transaction for e in events}) == 4
    Post.objects.create(title="later")
    assert read_all()[-1].seq == 9
    assert sequence("default", "posts").head == 9  # no event is unnumbered


def test_events_of_interleaved_transactions_are_not_mixed():
    """Row ids of concurrent transactions interleave, sequence numbers do not."""
    for n, name in enumerate("abab"):
        LogEvent.objects.create(
            collection="posts", transaction_id=name, op="created", document_id=str(n), after="{}"
        )
    assert [e.transaction for e in read_all()] == ["a", "a", "b", "b"]


def test_backlog_is_numbered_in_batches(monkeypatch):
    monkeypatch.setattr("django_cocobase_realtime.log.sequencer.BACKLOG_BATCH_SIZE", 10)
    for n in range(35):
        LogEvent.objects.create(
            collection="posts",
            transaction_id=str(n // 3),
            op="created",
            document_id=str(n),
            after="{}",
        )
    first = sequence("default", "posts", limit=5)
    assert (first.start, first.head, first.more) == (0, 9, True)  # whole transactions
    events = read_all()
    assert [e.document_id for e in events] == [str(n) for n in range(35)]
    assert [e.seq for e in events] == list(range(1, 36))


@pytest.mark.parametrize("limit", [5, 100])
def test_documents_are_stored_with_their_events(settings, monkeypatch, limit):
    monkeypatch.setattr("django_cocobase_realtime.log.sequencer.BATCH_SIZE", 4)
    posts = {"model": "app.Post", "serializer": lambda post: {"shown": post.title}}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": posts}}
    for n in range(10):
        Post.objects.create(title=f"post {n}")
    expected = [{"shown": f"post {n}"} for n in range(10)]
    result = sequence("default", "posts", limit)
    assert [e.document for e in result.changes or ()] == (expected if limit == 100 else [])
    assert [e.document for e in read_all()] == expected


def test_the_statements_do_not_grow_with_the_documents(settings):
    posts = {"model": "app.Post", "serializer": lambda post: {"shown": post.title}}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": posts}}
    counts = []
    for count in (1, 2, 40):
        for n in range(count):
            Post.objects.create(title=f"post {n}")
        with CaptureQueriesContext(connection) as queries:
            assert len(sequence("default", "posts").changes) == count
        counts.append(len(queries))
    assert counts[1] == counts[2]  # the first call also creates the stream


def test_old_events_are_looked_at_once(monkeypatch):
    """A trim in many transactions must not search the log in each of them."""
    monkeypatch.setattr("django_cocobase_realtime.log.retention.CHUNK_SIZE", 2)
    for n in range(10):
        Post.objects.create(title=f"post {n}")
    sequence("default", "posts")
    LogEvent.objects.filter(seq__lt=10).update(created_at=timezone.now() - timedelta(hours=1))
    with CaptureQueriesContext(connection) as queries:
        assert trim("default", max_age=60, max_events=None) == {"posts": 9}
    assert sum(">=" in query["sql"] and "created_at" in query["sql"] for query in queries) == 1
    assert [event.seq for event in read_all()] == [10]


def test_concurrent_sequencers_number_each_event_once():
    def work():
        try:
            for _ in range(20):
                sequence("default", "posts")
        finally:
            connection.close()

    def write(k):
        try:
            for n in range(25):
                with transaction.atomic():
                    Post.objects.create(title=f"{k}-{n}")
                    Post.objects.create(title=f"{k}-{n}'")
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    threads += [threading.Thread(target=write, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = read_all()
    assert [e.seq for e in events] == list(range(1, 201))
    for one, two in zip(events[::2], events[1::2], strict=True):
        assert one.transaction == two.transaction


def test_changes_of_a_row_keep_their_order_with_concurrent_writers():
    posts = [Post.objects.create(title="x", views=0) for _ in range(3)]

    def work(k):
        try:
            for n in range(15):
                post = posts[(k + n) % 3]
                twin = Post.objects.get(pk=post.pk)
                twin.views = F("views") + 1
                twin.save(update_fields=["views"])
                if n % 5 == 0:
                    sequence("default", "posts")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chains = {}
    for event in read_all():
        if event.op == "updated":
            assert event.before["views"] == chains.get(event.document_id, 0)
            chains[event.document_id] = event.after["views"]
    assert sum(chains.values()) == 60


def test_open_transaction_delays_only_its_own_events():
    if connection.vendor != "postgresql":
        return  # SQLite has one writer at a time
    started, release = threading.Event(), threading.Event()

    def write_slowly():
        try:
            with transaction.atomic():
                Post.objects.create(title="slow")
                started.set()
                release.wait(10)
        finally:
            connection.close()

    thread = threading.Thread(target=write_slowly)
    thread.start()
    started.wait(10)
    Post.objects.create(title="quick")
    assert [e.after["title"] for e in read_all()] == ["quick"]
    release.set()
    thread.join()
    assert [e.after["title"] for e in read_all()] == ["quick", "slow"]


def test_fetch_new_returns_progress_and_changes():
    progress = fetch_new("default", "posts", None)
    assert (progress.start, progress.head, progress.changes) == (0, 0, [])
    position = Position(progress.epoch, 0)
    assert streams_behind("default", {"posts": position}) == set()
    Post.objects.create(title="a")
    assert streams_behind("default", {"posts": position}) == {"posts"}
    progress = fetch_new("default", "posts", position)
    assert [c.after["title"] for c in progress.changes] == ["a"]
    assert (progress.start, progress.head, progress.more) == (0, 1, False)
    assert streams_behind("default", {"posts": position}) == {"posts"}
    assert streams_behind("default", {"posts": Position(progress.epoch, 1)}) == set()
    assert streams_behind("default", {"posts": Position("other", 1)}) == {"posts"}


def test_trim_by_number_and_age_raises_the_floor():
    for n in range(10):
        Post.objects.create(title=str(n))
    read_all()
    assert trim("default", max_age=None, max_events=6) == {"posts": 4}
    stream_range = stream_ranges("default", ["posts"])["posts"]
    assert (stream_range.floor, stream_range.head) == (4, 10)
    LogEvent.objects.filter(seq__lte=7).update(created_at=timezone.now() - timedelta(days=2))
    assert trim("default", max_age=86400, max_events=None) == {"posts": 3}
    assert [e.seq for e in read_all()] == [8, 9, 10]
    assert trim("default", max_age=86400, max_events=None) == {}
    LogEvent.objects.update(created_at=timezone.now() - timedelta(days=2))
    Post.objects.create(title="unnumbered")
    assert trim("default", max_age=86400, max_events=1) == {"posts": 3}
    assert [e.after["title"] for e in read_all()] == ["unnumbered"]


def test_trim_numbers_events_of_streams_without_subscribers():
    """Without numbers, clients would not notice that events were lost."""
    for n in range(10):
        Post.objects.create(title=str(n))
    assert trim("default", max_age=86400, max_events=None) == {}
    assert LogEvent.objects.count() == 10
    assert trim("default", max_age=None, max_events=4) == {"posts": 6}
    assert [e.seq for e in read_all()] == [7, 8, 9, 10]
    Author.objects.create(name="a")
    assert trim("default", max_age=None, max_events=1) == {"posts": 3}
    assert [e.after["name"] for e in read_all("authors")] == ["a"]
    assert trim("default", max_age=0, max_events=None) == {"authors": 1, "posts": 1}
    assert not LogEvent.objects.exists()


async def test_server_trims_streams_without_subscribers(realtime, user, settings, monkeypatch):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LOG": {"MAX_AGE": None, "MAX_EVENTS": 2},
    }
    monkeypatch.setattr(background_tasks, "TRIM_INTERVAL", 0.1)
    async with realtime(user=user):
        for n in range(5):
            await Post.objects.acreate(title=str(n))
        async with asyncio.timeout(10):
            while await LogEvent.objects.acount() > 2:
                await asyncio.sleep(0.05)


def test_rotate_epoch_changes_named_stream_only():
    Post.objects.create(title="a")
    Author.objects.create(name="b")
    read_all(), read_all("authors")
    before = stream_ranges("default", ["posts", "authors"])
    assert rotate_epoch("default", ["posts"]) == ["posts"]
    after = stream_ranges("default", ["posts", "authors"])
    assert after["authors"] == before["authors"]
    assert after["posts"].epoch != before["posts"].epoch
    assert after["posts"].floor == after["posts"].head


def test_cursor_is_decoded_and_validated():
    text = encode("posts", "abcd0123", 7)
    assert decode("posts", text) == Position("abcd0123", 7)
    assert text == encode("posts", "abcd0123", 7)
    for wrong in (encode("other", "abcd0123", 7), "", "x", text + " ", text.upper() + "x"):
        with pytest.raises(InvalidCursor):
            decode("posts", wrong)
