"""Reading the log within a number of bytes."""

import pytest

from django_cocobase_realtime.log import reader
from django_cocobase_realtime.log.reader import FEW_EVENTS, read_events
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
@pytest.mark.parametrize("limit", [1, 7, FEW_EVENTS, 25, 1000])
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
    """If there are more than a few, their lengths are read before them."""
    counts, decode = [], reader.changes_from_rows

    def count_and_decode(using, rows, **options):
        counts.append(len(rows))
        return decode(using, rows, **options)

    monkeypatch.setattr(reader, "changes_from_rows", count_and_decode)
    with django_assert_num_queries(2):
        read_events("default", "posts", epoch, 0, 1000, max_bytes=60_000)
    assert counts[0] < 20
    with django_assert_num_queries(1):
        read_events("default", "posts", epoch, 20, 1000, until=50, max_bytes=60_000)
    assert counts[1] < 20


def test_events_deleted_between_the_queries_are_missing(epoch, monkeypatch):
    measure = reader._count_fitting

    def trim_and_measure(*args):
        LogEvent.objects.filter(seq__lte=5).delete()
        return measure(*args)

    monkeypatch.setattr(reader, "_count_fitting", trim_and_measure)
    page = read_events("default", "posts", epoch, 0, 1000, max_bytes=10**6)
    assert page[0].seq == 6  # by which the caller notices the gap
