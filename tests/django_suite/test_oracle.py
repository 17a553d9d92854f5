"""The oracle of the runs of Django's tests: it finds events that are missing or wrong."""

import json

import pytest

from django_cocobase_realtime import capture_disabled
from django_cocobase_realtime.models import LogEvent
from tests.capture_app.models import Page
from tests.django_suite.oracle import Oracle, written_table
from tests.support.watching import watching

pytestmark = pytest.mark.django_db


@pytest.fixture
def oracle(monkeypatch):
    from django.db.backends.utils import CursorWrapper

    monkeypatch.setattr(
        CursorWrapper, "_execute_with_wrappers", CursorWrapper._execute_with_wrappers
    )
    with watching(Page):
        oracle = Oracle()
        oracle.install()
        yield oracle


def test_no_differences_if_all_writes_are_logged(oracle):
    kept = Page.objects.create(html="kept")
    oracle.start()
    page = Page.objects.create(html="a")
    page.a = 1
    page.save()
    Page.objects.filter(pk=kept.pk).update(b=2)
    Page.objects.create(html="c").delete()
    finding = oracle.stop(["default"])
    assert (finding.tables, finding.events) == (1, 6)
    assert [finding.differences, finding.broken, finding.skipped] == [[], [], []]
    assert finding.error == ""


def test_write_that_is_not_logged_is_a_difference(oracle):
    page = Page.objects.create(html="a")
    oracle.start()
    with capture_disabled():
        Page.objects.update(a=5)
        Page.objects.create(html="b")
        Page.objects.filter(pk=page.pk + 1).update(b=1)
    finding = oracle.stop(["default"])
    assert [text.partition(": ")[2] for text in finding.differences] == [
        f"{page.pk + 1} is in the table, but not in the log",
        f"{page.pk}: a is 0 in the log, 5 in the table",
    ]


def test_wrong_value_in_log_is_a_difference(oracle):
    oracle.start()
    page = Page.objects.create(html="a")
    event = LogEvent.objects.get()
    image = {**json.loads(event.after), "html": "z"} if isinstance(event.after, str) else None
    assert image is not None
    LogEvent.objects.update(after=json.dumps(image))
    finding = oracle.stop(["default"])
    (text,) = finding.differences
    assert text.endswith(f"{page.pk}: html is 'z' in the log, 'a' in the table")


def test_event_that_does_not_follow_is_reported(oracle):
    oracle.start()
    page = Page.objects.create(html="a")
    page.delete()
    LogEvent.objects.filter(op="created").delete()
    finding = oracle.stop(["default"])
    (text,) = finding.broken
    assert "there is no row" in text


def test_writes_before_comparison_are_compared_once(oracle):
    oracle.start()
    with capture_disabled():
        Page.objects.create(html="a")
    oracle.compare()
    Page.objects.create(html="b")
    finding = oracle.stop(["default"])
    assert len(finding.differences) == 1
    assert finding.tables == 2


def test_oracle_sends_no_recorded_queries(oracle, django_assert_num_queries):
    oracle.start()
    with django_assert_num_queries(1):
        Page.objects.create(html="a")
        oracle.stop(["default"])


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ('INSERT INTO "a_b" ("c") VALUES (%s)', "a_b"),
        ('INSERT OR IGNORE INTO "a" DEFAULT VALUES', "a"),
        ('UPDATE "a" SET "b" = 1', "a"),
        ("delete from a where b", "a"),
        ('UPDATE "s"."t" SET "b" = 1', 's"."t'),
        ('SELECT "a" FROM "b"', None),
    ],
)
def test_written_table(sql, table):
    assert written_table(sql) == table
