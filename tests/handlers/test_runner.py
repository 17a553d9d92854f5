"""Handlers: which changes they are called with, in which order, and what their failures do."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from django_cocobase_realtime import on_change
from django_cocobase_realtime.handlers import leases as leases_module
from django_cocobase_realtime.handlers.leases import Leases
from django_cocobase_realtime.handlers.runner import RETRY_DELAYS, HandlerRunner, Outcome
from django_cocobase_realtime.handlers.worker import run_once
from django_cocobase_realtime.log.cursor import decode
from django_cocobase_realtime.log.retention import rotate_epoch, trim
from django_cocobase_realtime.models import Handler
from tests.app.models import Author, Item, Post
from tests.support.triggers import watching_by_triggers

pytestmark = pytest.mark.django_db(transaction=True)


def titles(changes):
    return [(c.event, (c.after or c.before)["title"]) for c in changes]


@pytest.fixture
def recorder(handle):
    """Register a handler that keeps its changes, and run it once, so that it has a position."""

    def start(collection="posts", **options):
        changes = []
        handler = handle(changes.append, collection, **options)
        assert run_once([handler]) == {handler.name: Outcome.IDLE}
        return handler, changes

    return start


def test_handler_called_with_committed_changes_in_order(recorder):
    Post.objects.create(title="before the first run")
    handler, changes = recorder()
    with transaction.atomic():
        post = Post.objects.create(title="a", rating="4.50")
        Post.objects.create(title="b")
        assert changes == []
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Post.objects.create(title="rolled back")
        1 / 0  # noqa: B018
    post.title = "c"
    post.save()
    post.delete()
    run_once([handler])
    assert titles(changes) == [
        ("created", "a"),
        ("created", "b"),
        ("updated", "c"),
        ("deleted", "c"),
    ]
    assert changes[0].transaction == changes[1].transaction != changes[2].transaction
    run_once([handler])
    assert len(changes) == 4


def test_change_has_values_of_the_row_as_an_instance_has_them(recorder):
    handler, changes = recorder()
    author = Author.objects.create(name="ada")
    post = Post.objects.create(title="a", rating=Decimal("4.50"), author=author, meta={"k": [1]})
    post.title = "b"
    post.save(update_fields=["title"])
    run_once([handler])
    created, updated = changes
    assert (created.collection, created.document_id, created.before) == (
        "posts",
        str(post.pk),
        None,
    )
    assert created.after["id"] == post.pk
    assert created.after["rating"] == Decimal("4.50")
    assert created.after["author"] == author.pk
    assert created.after["meta"] == {"k": [1]}
    assert created.after["created_at"] == post.created_at
    assert (updated.before["title"], updated.after["title"]) == ("a", "b")
    assert updated.changed == ("title",)
    assert decode("posts", updated.cursor).seq == decode("posts", created.cursor).seq + 1
    assert abs((datetime.now(UTC) - updated.at).total_seconds()) < 60


def test_secret_fields_are_not_in_changes(recorder):
    handler, changes = recorder("authors")
    Author.objects.create(name="ada", password="hunter3")
    run_once([handler])
    assert set(changes[0].after) == {"id", "name"}


def test_filters_and_ops_choose_changes(recorder):
    handler, changes = recorder(filters={"status": "published"}, ops=["updated", "deleted"])
    post = Post.objects.create(title="a")
    post.title = "still a draft"
    post.save()
    post.status = "published"
    post.save()
    post.delete()
    Post.objects.create(title="b").delete()
    run_once([handler])
    assert [change.event for change in changes] == ["updated", "deleted"]
    row = Handler.objects.get()
    run_once([handler])
    row.refresh_from_db()
    assert (len(changes), row.seq) == (2, 6)


def test_soft_delete_is_a_deletion(recorder, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"items": {"model": "app.Item", "soft_delete": {"size": 0}}}
    }
    handler, changes = recorder("items")
    item = Item.objects.create(name="a", size=1)
    item.size = 0
    item.save()
    item.name = "b"
    item.save()
    run_once([handler])
    assert [change.event for change in changes] == ["created", "deleted"]


def test_changes_that_triggers_have_captured(handle):
    changes = []
    with watching_by_triggers(Post):
        handler = handle(changes.append, "post", filters={"title": {"ne": "hidden"}})
        run_once([handler])
        post = Post.objects.create(title="a", rating=Decimal("1.25"))
        Post.objects.filter(pk=post.pk).update(title="hidden")
        Post.objects.filter(pk=post.pk).update(title="b")
        run_once([handler])
    assert titles(changes) == [("created", "a"), ("updated", "b")]
    assert changes[0].after["rating"] == Decimal("1.25")
    assert changes[1].before["title"] == "hidden"
    assert changes[1].changed == ("title",)


def test_changed_related_row_without_a_server(recorder, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "fields": ["title", "author.name"]}}
    }
    author = Author.objects.create(name="ada")
    post = Post.objects.create(title="a", author=author)
    handler, changes = recorder()
    author.name = "grace"
    author.save()
    run_once([handler])
    assert [(c.event, c.document_id, c.changed) for c in changes] == [
        ("updated", str(post.pk), ("author.name",))
    ]


def test_more_changes_than_a_batch(recorder):
    handler, changes = recorder(batch_size=2)
    for number in range(7):
        Post.objects.create(title=str(number))
    run_once([handler])
    assert [title for _, title in titles(changes)] == list("0123456")


def test_asynchronous_functions_share_an_event_loop(handle):
    loops, changes = [], []

    async def function(change):
        await Author.objects.acount()
        loops.append(asyncio.get_running_loop())
        changes.append(change)

    handler = handle(function)
    run_once([handler])
    Post.objects.create(title="a")
    Post.objects.create(title="b")
    run_once([handler])
    assert titles(changes) == [("created", "a"), ("created", "b")]
    assert loops[0] is loops[1]


# failures


class Failing:
    """A function that raises for a title, so many times."""

    def __init__(self, title, times):
        self.changes = []
        self.title, self.times = title, times

    def __call__(self, change):
        title = change.after["title"]
        self.changes.append(title)
        if title == self.title and self.times:
            self.times -= 1
            raise ValueError(f"no {title}")


def run_until_idle(runner):
    """Run without waiting after failures; return the outcomes."""
    outcomes = []
    while not outcomes or outcomes[-1] in (Outcome.MORE, Outcome.FAILED):
        outcomes.append(runner.run_batch())
    return outcomes


@pytest.fixture
def runner(handle):
    """Make a runner of a function whose handler is at the head."""
    leases = Leases()
    runners = []

    def make(function, **options):
        runner = HandlerRunner(handle(function, **options), leases)
        runners.append(runner)
        assert runner.run_batch() is Outcome.IDLE
        return runner

    yield make
    for runner in runners:
        runner.close()
    leases.close()


def test_failed_change_is_tried_again_before_the_next_one(runner, caplog):
    function = Failing("b", 3)
    failing = runner(function)
    for title in "abc":
        Post.objects.create(title=title)
    assert failing.run_batch() is Outcome.FAILED
    first = failing.retry_delay
    row = Handler.objects.get()
    assert (row.seq, row.failures, row.last_error) == (1, 1, "ValueError: no b")
    assert failing.run_batch() is Outcome.FAILED
    assert (first, failing.retry_delay) == (RETRY_DELAYS[0], RETRY_DELAYS[0] * 2)
    run_until_idle(failing)
    assert function.changes == ["a", "b", "b", "b", "b", "c"]
    row.refresh_from_db()
    assert (row.seq, row.failures, row.last_error) == (3, 0, "")
    # logged once, although it has failed three times
    assert len([r for r in caplog.records if "Failing" in r.message or "no b" in r.message]) == 1


def test_delay_after_failures_is_limited(runner):
    failing = runner(Failing("a", 5))
    Post.objects.create(title="a")
    Handler.objects.update(failures=10**6)
    assert failing.run_batch() is Outcome.FAILED
    assert failing.retry_delay == RETRY_DELAYS[1]


def test_change_is_skipped_after_the_last_attempt(runner, caplog):
    function = Failing("b", 99)
    failing = runner(function, max_attempts=2, on_failure="skip")
    for title in "abc":
        Post.objects.create(title=title)
    assert run_until_idle(failing)[-1] is Outcome.IDLE
    assert function.changes == ["a", "b", "b", "c"]
    assert "skips change 2" in caplog.text


def test_handler_is_stopped_after_the_last_attempt(runner, caplog):
    function = Failing("b", 2)
    failing = runner(function, max_attempts=2)
    for title in "abc":
        Post.objects.create(title=title)
    assert run_until_idle(failing)[-1] is Outcome.STOPPED
    assert failing.run_batch() is Outcome.STOPPED
    assert function.changes == ["a", "b", "b"]
    assert "is stopped at change 2" in caplog.text


def test_attempts_are_counted_when_the_process_starts_again(handle):
    function = Failing("a", 99)
    handler = handle(function, max_attempts=2)
    run_once([handler])
    Post.objects.create(title="a")
    assert run_once([handler]) == {"h": Outcome.FAILED}
    assert run_once([handler]) == {"h": Outcome.STOPPED}
    assert run_once([handler]) == {"h": Outcome.STOPPED}
    assert function.changes == ["a", "a"]


# lost positions


@pytest.mark.parametrize("lose", ["trim", "epoch"])
def test_lost_position_calls_on_lost_and_continues_at_the_head(recorder, caplog, lose):
    calls = []

    def on_lost():
        calls.append(len(calls))
        if len(calls) == 1:
            raise ValueError
        Post.objects.create(title="during")

    handler, changes = recorder(on_lost=on_lost)
    for title in "abc":
        Post.objects.create(title=title)
    if lose == "trim":
        trim("default", max_age=None, max_events=1)
    else:
        rotate_epoch("default", ["posts"])
    assert run_once([handler]) == {"h": Outcome.FAILED}
    assert "does not contain the changes" in caplog.text
    assert run_once([handler]) == {"h": Outcome.IDLE}
    assert calls == [0, 1]
    # a change that is committed while `on_lost` runs is not lost
    assert titles(changes) == [("created", "during")]
    Post.objects.create(title="after")
    run_once([handler])
    assert titles(changes)[-1] == ("created", "after")


# several processes


def test_one_process_calls_a_handler(recorder, monkeypatch):
    handler, changes = recorder()
    first, second = Leases(), Leases()
    runners = HandlerRunner(handler, first), HandlerRunner(handler, second)
    Post.objects.create(title="a")
    assert runners[0].run_batch() is Outcome.MORE
    Post.objects.create(title="b")
    assert runners[1].run_batch() is Outcome.ELSEWHERE
    runners[0].close()
    assert runners[1].run_batch() is Outcome.MORE
    runners[1].close()
    first.close(), second.close()
    assert titles(changes) == [("created", "a"), ("created", "b")]


def test_lease_is_renewed_while_the_function_runs(handle, monkeypatch):
    monkeypatch.setattr(leases_module, "LEASE_SECONDS", 0.4)
    leases, other = Leases(), Leases()
    outcomes = []

    def function(change):
        import time

        time.sleep(1)
        outcomes.append(HandlerRunner(handler, other).run_batch())

    handler = handle(function)
    runner = HandlerRunner(handler, leases)
    runner.run_batch()
    Post.objects.create(title="a")
    assert runner.run_batch() is Outcome.MORE
    assert outcomes == [Outcome.ELSEWHERE]
    runner.close()
    leases.close(), other.close()


def test_process_that_lost_its_lease_does_not_move_the_position(handle, monkeypatch):
    leases = Leases()

    def function(change):
        Handler.objects.update(owner="another")

    runner = HandlerRunner(handle(function), leases)
    runner.run_batch()
    Post.objects.create(title="a")
    assert runner.run_batch() is Outcome.ELSEWHERE
    assert Handler.objects.get().seq == 0
    leases.close()


# declarations


@pytest.mark.parametrize(
    "options",
    [
        {"ops": "created"},
        {"ops": ["created", "saved"]},
        {"ops": []},
        {"on_failure": "raise"},
        {"max_attempts": 0},
        {"batch_size": 0},
        {"name": ""},
        {"name": "x" * 201},
    ],
)
def test_invalid_options_are_refused(options):
    with pytest.raises(ImproperlyConfigured, match="on_change"):
        on_change("posts", **options)(lambda change: None)


def test_two_handlers_of_one_name_are_refused(handle):
    handle(print)
    with pytest.raises(ImproperlyConfigured, match="two functions"):
        on_change("posts", name="h")(print)
