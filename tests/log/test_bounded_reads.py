"""Reading the log within a number of bytes."""

import pytest

from django_cocobase_realtime.log import reader
from django_cocobase_realtime.log.reader import FIRST_EVENTS, read_events
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent
from tests.app.models import Post

pytestmark = pytest.mark.django_db(transaction=True)
COUNT = 60


@pytest.fixture
def epoch():
    for number in range(COUNT):
        Post.objects.create(title=str(number), body="字" * 3_000)
    Post.objects.filter(title="40").get().delete()
    return sequence("default", "posts").epoch


def read_in_pages(epoch, limit, max_bytes):
    pages, after = [], 0
    while True:
        page = read_events("default", "posts", epoch, after, limit, max_bytes=max_bytes)
        if not page:
            return pages
        pages.append([change.seq for change in page])
        after = page[-1].seq


@pytest.mark.parametrize("max_bytes", [1, 10_000, 50_000, 10**7])
@pytest.mark.parametrize("limit", [1, 7, FIRST_EVENTS, 25, 1000])
def test_pages_have_all_events_in_order(epoch, limit, max_bytes):
    pages = read_in_pages(epoch, limit, max_bytes)
    assert [seq for page in pages for seq in page] == list(range(1, COUNT + 2))
    longest = max(map(len, pages))
    assert longest <= min(limit, max(1, max_bytes // 3_300))
    assert longest >= min(limit, max(1, max_bytes // 4_000), COUNT)


def test_first_event_is_read_even_if_it_is_too_large(epoch):
    (change,) = read_events("default", "posts", epoch, 0, 10, max_bytes=100)
    assert change.seq == 1


def test_no_more_events_are_loaded_than_needed(epoch, django_assert_num_queries, monkeypatch):
    """After the first events, their lengths are read before them."""
    counts, decode = [], reader.changes_from_rows

    def count_and_decode(using, rows, **options):
        counts.append(len(rows))
        return decode(using, rows, **options)

    monkeypatch.setattr(reader, "changes_from_rows", count_and_decode)
    with django_assert_num_queries(3):
        read_events("default", "posts", epoch, 0, 1000, max_bytes=60_000)
    assert FIRST_EVENTS < counts[0] < 20
    with django_assert_num_queries(1):
        read_events("default", "posts", epoch, COUNT - 5, 1000, max_bytes=60_000)


def test_page_ends_at_gap_of_events_deleted_between_the_queries(epoch, monkeypatch):
    measure = reader._total_length

    def trim_and_measure(*names):
        LogEvent.objects.filter(seq__lte=20).delete()
        return measure(*names)

    monkeypatch.setattr(reader, "_total_length", trim_and_measure)
    page = read_events("default", "posts", epoch, 0, 1000, max_bytes=10**6)
    assert [change.seq for change in page] == list(range(1, FIRST_EVENTS + 1))
