"""The log itself: dense numbers, no inversion of a row, a floor that moves with the events."""

import asyncio
import io
import threading
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.db.models import F
from django.utils import timezone

from django_cocobase_realtime.hub import maintenance as upkeep
from django_cocobase_realtime.log.cursor import InvalidCursor, Position, decode, encode
from django_cocobase_realtime.log.reader import (
    fetch_new,
    read_events,
    stream_ranges,
    streams_behind,
)
from django_cocobase_realtime.log.retention import rotate_epoch, trim
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent, Stream
from tests.app.models import Author, Post

pytestmark = pytest.mark.django_db(transaction=True)


def numbered(collection="posts"):
    """All events, numbered."""
    while sequence("default", collection).more:
        pass
    stream = Stream.objects.get(collection=collection)
    return read_events("default", collection, stream.epoch, stream.floor, 10**6)


def test_an_event_is_written_with_its_row_or_not_at_all():
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
    assert [e.after["title"] for e in numbered()] == ["a", "b"]


def test_numbers_are_dense_and_each_transaction_is_whole():
    with transaction.atomic():
        for n in range(5):
            Post.objects.create(title=f"one {n}")
    for n in range(3):
        Post.objects.create(title=f"single {n}")
    events = numbered()
    assert [e.seq for e in events] == list(range(1, 9))
    assert len({e.transaction for e in events[:5]}) == 1
    assert len({e.transaction for e in events}) == 4
    Post.objects.create(title="later")
    assert numbered()[-1].seq == 9
    assert sequence("default", "posts").head == 9  # nothing waits


def test_events_by_interleaved_transactions_do_not_mix():
    """Ids interleave where transactions do; numbers never."""
    for n, name in enumerate("abab"):
        LogEvent.objects.create(
            collection="posts", transaction_id=name, op="created", document_id=str(n), after="{}"
        )
    assert [e.transaction for e in numbered()] == ["a", "a", "b", "b"]


def test_a_backlog_is_numbered_in_batches(monkeypatch):
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
    assert (first.start, first.head, first.more) == (0, 12, True)  # whole transactions
    events = numbered()
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
    assert [e.document for e in numbered()] == expected


def test_two_sequencers_race():
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
    events = numbered()
    assert [e.seq for e in events] == list(range(1, 201))
    for one, two in zip(events[::2], events[1::2], strict=True):
        assert one.transaction == two.transaction


def test_no_row_is_inverted_under_concurrent_writers():
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
    for event in numbered():
        if event.op == "updated":
            assert event.before["views"] == chains.get(event.document_id, 0)
            chains[event.document_id] = event.after["views"]
    assert sum(chains.values()) == 60


def test_an_open_transaction_delays_only_its_own_events():
    if connection.vendor != "postgresql":
        return  # SQLite has one writer at a time
    begun, go_on = threading.Event(), threading.Event()

    def slow():
        try:
            with transaction.atomic():
                Post.objects.create(title="slow")
                begun.set()
                go_on.wait(10)
        finally:
            connection.close()

    thread = threading.Thread(target=slow)
    thread.start()
    begun.wait(10)
    Post.objects.create(title="quick")
    assert [e.after["title"] for e in numbered()] == ["quick"]
    go_on.set()
    thread.join()
    assert [e.after["title"] for e in numbered()] == ["quick", "slow"]


def test_what_follow_tells():
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


def test_trim_by_number_and_age_moves_the_floor():
    for n in range(10):
        Post.objects.create(title=str(n))
    numbered()
    assert trim("default", max_age=None, max_events=6) == {"posts": 4}
    extent = stream_ranges("default", ["posts"])["posts"]
    assert (extent.floor, extent.head) == (4, 10)
    LogEvent.objects.filter(seq__lte=7).update(created_at=timezone.now() - timedelta(days=2))
    assert trim("default", max_age=86400, max_events=None) == {"posts": 3}
    assert [e.seq for e in numbered()] == [8, 9, 10]
    assert trim("default", max_age=86400, max_events=None) == {}
    LogEvent.objects.update(created_at=timezone.now() - timedelta(days=2))
    Post.objects.create(title="unnumbered")
    assert trim("default", max_age=86400, max_events=1) == {"posts": 3}
    assert [e.after["title"] for e in numbered()] == ["unnumbered"]


def test_what_nobody_follows_is_trimmed_too():
    """Nothing was numbered: without a number its loss could not be told, so it gets one."""
    for n in range(10):
        Post.objects.create(title=str(n))
    assert trim("default", max_age=86400, max_events=None) == {}
    assert LogEvent.objects.count() == 10
    assert trim("default", max_age=None, max_events=4) == {"posts": 6}
    assert [e.seq for e in numbered()] == [7, 8, 9, 10]
    Author.objects.create(name="a")
    assert trim("default", max_age=None, max_events=1) == {"posts": 3}
    assert [e.after["name"] for e in numbered("authors")] == ["a"]
    assert trim("default", max_age=0, max_events=None) == {"authors": 1, "posts": 1}
    assert not LogEvent.objects.exists()


async def test_a_server_trims_what_nobody_there_follows(realtime, user, settings, monkeypatch):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LOG": {"MAX_AGE": None, "MAX_EVENTS": 2},
    }
    monkeypatch.setattr(upkeep, "TRIM_INTERVAL", 0.1)
    async with realtime(user=user):
        for n in range(5):
            await Post.objects.acreate(title=str(n))
        async with asyncio.timeout(10):
            while await LogEvent.objects.acount() > 2:
                await asyncio.sleep(0.05)


def test_a_new_epoch():
    Post.objects.create(title="a")
    Author.objects.create(name="b")
    numbered(), numbered("authors")
    before = stream_ranges("default", ["posts", "authors"])
    assert rotate_epoch("default", ["posts"]) == ["posts"]
    after = stream_ranges("default", ["posts", "authors"])
    assert after["authors"] == before["authors"]
    assert after["posts"].epoch != before["posts"].epoch
    assert after["posts"].floor == after["posts"].head


def test_cursors():
    text = encode("posts", "abcd0123", 7)
    assert decode("posts", text) == Position("abcd0123", 7)
    assert text == encode("posts", "abcd0123", 7)
    for wrong in (encode("other", "abcd0123", 7), "", "x", text + " ", text.upper() + "x"):
        with pytest.raises(InvalidCursor):
            decode("posts", wrong)


def run(name, *args):
    out = io.StringIO()
    call_command(name, *args, stdout=out)
    return out.getvalue()


def test_the_command_that_trims(settings):
    for n in range(5):
        Post.objects.create(title=str(n))
    Author.objects.create(name="a")
    numbered(), numbered("authors")
    assert run("realtime_trim") == "0 dropped in all.\n"
    assert run("realtime_trim", "--max-events", "2") == "posts: 3 dropped\n3 dropped in all.\n"
    assert run("realtime_trim", "--max-age", "0").endswith("3 dropped in all.\n")
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LOG": {"MAX_AGE": None, "MAX_EVENTS": 1},
    }
    for n in range(3):
        Post.objects.create(title=str(n))
    numbered()
    assert run("realtime_trim") == "posts: 2 dropped\n2 dropped in all.\n"
    with pytest.raises(CommandError, match="below zero"):
        run("realtime_trim", "--max-age", "-1")


def test_the_command_that_begins_a_new_epoch():
    Post.objects.create(title="a")
    Author.objects.create(name="a")
    numbered(), numbered("authors")
    before = stream_ranges("default", ["posts", "authors"])
    assert run("realtime_rotate_epoch", "posts") == "posts: a new epoch\n"
    between = stream_ranges("default", ["posts", "authors"])
    assert between["posts"].epoch != before["posts"].epoch
    assert between["authors"] == before["authors"]
    assert run("realtime_rotate_epoch") == "authors: a new epoch\nposts: a new epoch\n"
    assert stream_ranges("default", ["authors"])["authors"].epoch != before["authors"].epoch
    with pytest.raises(CommandError, match="nothing"):
        run("realtime_rotate_epoch", "nothing")
