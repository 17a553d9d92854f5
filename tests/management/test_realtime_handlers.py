"""The command ``realtime_handlers``."""

import io

import pytest
from django.core.management import CommandError, call_command
from django.test import TestCase

from django_cocobase_realtime import on_change
from django_cocobase_realtime.declarations.handler import handler_registry
from django_cocobase_realtime.handlers.leases import Leases
from django_cocobase_realtime.log.retention import trim
from tests.app.models import Post
from tests.handlers.conftest import handle  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db(transaction=True)


class HandlerTests(TestCase):
    """A project tests its handlers in the transaction of a test case."""

    def test_once_in_a_transaction(self):
        titles = []

        @on_change("posts", name="in a test case", max_attempts=2, on_failure="skip")
        def function(change):
            titles.append(change.after["title"])
            if change.after["title"] == "a":
                raise ValueError

        self.addCleanup(handler_registry.remove, "in a test case")
        run("--once")
        Post.objects.create(title="a")
        Post.objects.create(title="b")
        with pytest.raises(CommandError):
            run("--once")
        run("--once")
        assert titles == ["a", "a", "b"]


def run(*args):
    out = io.StringIO()
    call_command("realtime_handlers", *args, stdout=out)
    return out.getvalue()


def test_command_without_handlers_names_the_decorator():
    with pytest.raises(CommandError, match="on_change"):
        run()


def test_once_calls_the_named_handlers(handle):  # noqa: F811
    changes = []
    handle(lambda change: changes.append(("a", change.after["title"])), name="a")
    handle(lambda change: changes.append(("b", change.after["title"])), name="b")
    assert run("--once") == "a: done\nb: done\n"
    Post.objects.create(title="1")
    assert run("--once", "--name", "b") == "b: done\n"
    assert changes == [("b", "1")]
    leases = Leases()
    assert leases.acquire("default", "a")
    assert run("--once") == "a: called by another process\nb: done\n"
    leases.release("default", "a")
    leases.close()
    run("--once")
    assert changes == [("b", "1"), ("a", "1")]
    with pytest.raises(CommandError, match="no handler 'c'"):
        run("--name", "c")


def test_status_and_restart(handle):  # noqa: F811
    is_broken = True

    def function(change):
        if is_broken:
            raise ValueError("broken")

    handle(function, max_attempts=2)
    assert run("--status") == "h: new, posts, lag -\n"
    run("--once")
    assert run("--status") == "h: idle, posts, lag 0\n"
    for title in "abc":
        Post.objects.create(title=title)
    assert run("--status") == "h: idle, posts, lag 3\n"
    with pytest.raises(CommandError, match="h: failed"):
        run("--once")
    text = "  1 failures, last: ValueError: broken\n"
    assert run("--status") == f"h: failing, posts, lag 3\n{text}"
    with pytest.raises(CommandError, match="h: stopped"):
        run("--once")
    assert run("--status").startswith("h: stopped, posts, lag 3\n")
    is_broken = False
    assert run("--restart") == "h: restarted\n"
    assert run("--restart") == ""
    run("--once")
    assert run("--status") == "h: idle, posts, lag 0\n"
    leases = Leases()
    leases.acquire("default", "h")
    assert run("--status") == "h: running, posts, lag 0\n"
    leases.release("default", "h")
    leases.close()
    Post.objects.create(title="d")
    trim("default", max_age=None, max_events=0)
    assert run("--status") == "h: lost, posts, lag 1\n"
