"""The command ``realtime_watch``."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from django_cocobase_realtime.log.cursor import encode
from django_cocobase_realtime.log.reader import fetch_new, stream_ranges
from django_cocobase_realtime.log.retention import trim
from django_cocobase_realtime.management.watching.lines import Rate
from tests.app.models import Author, Post
from tests.relations_app.models import Membership, Organization, Project, Ticket
from tests.support import tickets
from tests.support.log import read_all
from tests.support.servers import ROOT

pytestmark = pytest.mark.django_db(transaction=True)


def watch(*args, out=None):
    """Run the command, and return the lines that it prints."""
    out = out or io.StringIO()
    call_command("realtime_watch", *args, stdout=out, stderr=io.StringIO())
    return out.getvalue().splitlines()


def watch_json(*args):
    return [json.loads(line) for line in watch(*args, "--json")]


def start(collection="posts"):
    """Return a cursor before all events that follow."""
    batch = fetch_new("default", collection, None)
    return encode(collection, batch.epoch, batch.head)


def test_watch_prints_event_id_changed_fields_and_transaction():
    since = start()
    post = Post.objects.create(title="first")
    Post.objects.filter(pk=post.pk).update(title="second", views=3)
    post.delete()
    changes = read_all()
    created, updated, deleted = watch("posts", "--since", since, "--count", "3")
    assert f"created  posts/{changes[0].document_id}" in created
    assert 'title="first"' in created
    assert 'title="first" → "second"  views=0 → 3' in updated
    assert "status" not in updated
    assert deleted.split("  ")[1] == "deleted"
    for line, change in zip((created, updated, deleted), changes, strict=True):
        assert line.endswith(f"({change.transaction[:8]})")


def test_filter_and_fields_select_what_is_printed():
    since = start()
    post = Post.objects.create(title="a", status="draft", views=1)
    Post.objects.create(title="b", status="published", views=20)
    Post.objects.filter(pk=post.pk).update(status="published")
    Post.objects.filter(pk=post.pk).update(status="draft")
    args = ("posts", "--since", since, "--filter", "status=published")
    events = watch_json(*args, "--fields", "title", "--count", "3")
    assert [(event["event"], event["data"]) for event in events] == [
        ("created", {"title": "b"}),
        ("entered", {"title": "a"}),
        ("left", {"title": "a"}),
    ]
    assert len(watch(*args, "--filter", "views__gt=10", "--count", "1")) == 1
    Post.objects.create(title="c", status="x")
    (event,) = watch_json("posts", "--since", since, "--filter", "status__in=x,y", "--count", "1")
    assert event["data"]["title"] == "c"


def test_json_has_cursor_from_which_next_run_continues():
    since = start()
    for title in "abc":
        Post.objects.create(title=title)
    (first,) = watch_json("posts", "--since", since, "--count", "1")
    assert set(first) == {
        "event", "collection", "id", "data", "changed", "transaction", "at", "cursor",
    }  # fmt: skip
    rest = watch_json("posts", "--since", first["cursor"], "--count", "2")
    assert [event["data"]["title"] for event in rest] == ["b", "c"]


def declare_tickets(settings, user, **options):
    tickets.declare(settings, **options)
    organization = Organization.objects.create(name="o")
    shown = Project.objects.create(name="p", organization=organization)
    hidden = Project.objects.create(name="q")
    Membership.objects.create(user=user, organization=organization)
    return shown, hidden


@pytest.mark.parametrize("by", ["pk", "username"])
def test_user_gets_rows_and_fields_of_permission(settings, user, by):
    shown, hidden = declare_tickets(settings, user)
    since = start("tickets")
    Ticket.objects.create(title="hidden", project=hidden)
    moved = Ticket.objects.create(title="shown", project=shown)
    Ticket.objects.filter(pk=moved.pk).update(project=hidden)
    Ticket.objects.create(title="last", project=shown)
    name = str(getattr(user, by))
    events = watch_json("tickets", "--since", since, "--user", name, "--count", "3")
    assert [(e["event"], e["data"] and e["data"]["title"]) for e in events] == [
        ("created", "shown"),
        ("left", None),
        ("created", "last"),
    ]
    assert not any("old" in event for event in events)
    everything = watch_json("tickets", "--since", since, "--count", "4")
    assert [event["data"]["title"] for event in everything] == ["hidden", "shown", "shown", "last"]


def test_row_permission_decides_for_user(settings, user):
    shown, _ = declare_tickets(settings, user, permission="CheckedMember")
    since = start("tickets")
    Ticket.objects.create(title="own", project=shown, assignee=user)
    Ticket.objects.create(title="other", project=shown)
    (event,) = watch_json("tickets", "--since", since, "--user", str(user.pk), "--count", "1")
    assert event["data"]["title"] == "other"


def test_user_who_loses_right_ends_command(settings, user):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": "tests.management.permissions.IsStaff"}
        }
    }
    with pytest.raises(CommandError, match="may not subscribe"):
        watch("posts", "--user", str(user.pk))
    user.is_staff = True
    user.save()
    since = start()
    Post.objects.create(title="a")
    assert len(watch("posts", "--user", str(user.pk), "--since", since, "--count", "1")) == 1
    user.is_active = False
    user.save()
    with pytest.raises(CommandError, match="no active user"):
        watch("posts", "--user", str(user.pk))


def test_mistakes_in_options_are_explained(settings, user):
    for args, message in (
        (("nothing",), "no collection 'nothing'"),
        (("posts", "--filter", "status"), "field=value"),
        (("posts", "--filter", "nothing=1"), "nothing"),
        (("posts", "--filter", "views=x"), "views"),
        (("posts", "--fields", "nothing"), "nothing"),
        (("posts", "--user", "999999"), "no active user"),
        (("posts", "--since", "x"), "invalid_cursor"),
        (("posts", "--count", "0"), "at least 1"),
        (("authors", "--fields", "password"), "password"),
        (("authors", "--filter", "password=x"), "password"),
    ):
        with pytest.raises(CommandError, match=message):
            watch(*args)
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post", "durable": False}}}
    with pytest.raises(CommandError, match="no log"):
        watch("posts")


def test_secret_fields_are_not_printed():
    since = start("authors")
    Author.objects.create(name="ada", password="xyzzy")
    (line,) = watch("authors", "--since", since, "--count", "1")
    assert "ada" in line
    assert "xyzzy" not in line


def test_cursor_of_deleted_events_is_refused():
    since = start()
    for title in "abc":
        Post.objects.create(title=title)
    read_all()
    trim("default", max_age=None, max_events=1)
    with pytest.raises(CommandError, match="retention"):
        watch("posts", "--since", since)


def test_control_characters_are_escaped():
    since = start()
    Post.objects.create(title="\x1b[2Jhello\x9b")
    (line,) = watch("posts", "--since", since, "--count", "1")
    assert line.isprintable()
    assert "hello" in line


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_colour_only_on_terminals_that_want_it(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    since = start()
    Post.objects.create(title="a")
    args = ("posts", "--since", since, "--count", "1")
    (plain,) = watch(*args)
    (coloured,) = watch(*args, "--force-color", out=Terminal())
    assert "\x1b[" not in plain
    assert "\x1b[" in coloured
    assert "\x1b[" not in watch(*args, "--no-color", out=Terminal())[0]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in watch(*args, "--force-color", out=Terminal())[0]


def test_rate_counts_events_of_last_seconds():
    now = [0.0]
    rate = Rate(lambda: now[0])
    rate.add(20, 5)
    now[0] = 10.0
    assert rate.line() == "2.0 events/s, 20 read, 5 shown"
    now[0] = 20.1
    assert rate.line() == "0.0 events/s, 20 read, 5 shown"


def test_new_events_are_numbered_and_printed_without_server():
    out = io.StringIO()

    def run():
        try:
            watch("posts", "--count", "2", out=out)
        finally:
            connections.close_all()

    start()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    # events before the command has started are not printed
    while thread.is_alive() and time.monotonic() < deadline:
        Post.objects.create(title="live")
        time.sleep(0.2)
    thread.join(10)
    assert len(out.getvalue().splitlines()) == 2
    assert stream_ranges("default", ["posts"])["posts"].head >= 2


def test_rotated_epoch_and_deleted_events_are_noted():
    from django_cocobase_realtime.declarations.registry import registry
    from django_cocobase_realtime.log.retention import rotate_epoch
    from django_cocobase_realtime.management.watching.tail import StreamTail

    tail = StreamTail(registry.get("posts"))
    for title in "abc":
        Post.objects.create(title=title)
    read_all()
    trim("default", max_age=None, max_events=1)
    batch = tail.read()
    assert batch.notice == "2 events were deleted before they were read."
    assert [change.after["title"] for change in batch.changes] == ["c"]
    rotate_epoch("default", ["posts"])
    assert "new epoch" in tail.read().notice
    Post.objects.create(title="d")
    read_all()
    assert [change.after["title"] for change in tail.read().changes] == ["d"]


def test_interrupt_ends_command_with_summary():
    since = start()
    Post.objects.create(title="a")
    databases = {alias: dict(connections[alias].settings_dict) for alias in connections}
    for alias, database in databases.items():
        database["NAME"] = str(connections[alias].settings_dict["NAME"])
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "REALTIME_TEST_DATABASES": json.dumps(databases),
    }
    command = [sys.executable, "-m", "django", "realtime_watch", "posts", "--since", since]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)
    try:
        assert 'title="a"' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert output == ""
    assert "1 read, 1 shown. Continue with --since " in errors
    assert "Traceback" not in errors
