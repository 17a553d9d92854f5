"""The commands ``realtime_trim`` and ``realtime_rotate_epoch``."""

import io

import pytest
from django.core.management import CommandError, call_command

from django_cocobase_realtime.log.reader import stream_ranges
from tests.app.models import Author, Post
from tests.support.log import read_all

pytestmark = pytest.mark.django_db(transaction=True)


def run(name, *args):
    out = io.StringIO()
    call_command(name, *args, stdout=out)
    return out.getvalue()


def test_trim_uses_arguments_or_settings(settings):
    for n in range(5):
        Post.objects.create(title=str(n))
    Author.objects.create(name="a")
    read_all(), read_all("authors")
    assert run("realtime_trim") == "0 dropped in all.\n"
    assert run("realtime_trim", "--max-events", "2") == "posts: 3 dropped\n3 dropped in all.\n"
    assert run("realtime_trim", "--max-age", "0").endswith("3 dropped in all.\n")
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LOG": {"MAX_AGE": None, "MAX_EVENTS": 1},
    }
    for n in range(3):
        Post.objects.create(title=str(n))
    read_all()
    assert run("realtime_trim") == "posts: 2 dropped\n2 dropped in all.\n"
    with pytest.raises(CommandError, match="below zero"):
        run("realtime_trim", "--max-age", "-1")


def test_rotate_epoch_of_one_or_all_streams():
    Post.objects.create(title="a")
    Author.objects.create(name="a")
    read_all(), read_all("authors")
    before = stream_ranges("default", ["posts", "authors"])
    assert run("realtime_rotate_epoch", "posts") == "posts: a new epoch\n"
    between = stream_ranges("default", ["posts", "authors"])
    assert between["posts"].epoch != before["posts"].epoch
    assert between["authors"] == before["authors"]
    assert run("realtime_rotate_epoch") == "authors: a new epoch\nposts: a new epoch\n"
    assert stream_ranges("default", ["authors"])["authors"].epoch != before["authors"].epoch
    with pytest.raises(CommandError, match="nothing"):
        run("realtime_rotate_epoch", "nothing")
