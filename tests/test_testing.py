"""The test helpers of the package."""

import asyncio
import subprocess
import sys
from contextlib import suppress

import pytest
from django.db import transaction

from django_cocobase_realtime import broadcast, capture_disabled
from django_cocobase_realtime.testing import LossyChannelLayer, capture_events
from tests.app.models import Message, Post
from tests.support.servers import ROOT


@pytest.mark.django_db(transaction=True)
def test_capture_events_collects_committed_changes():
    with capture_events() as events:
        Message.objects.create(text="x")
    Message.objects.create(text="y")
    assert [e.after["text"] for e in events] == ["x"]


@pytest.mark.django_db
def test_capture_events_without_commit_says_so():
    with capture_events() as events:
        assert events == []  # nothing was written yet
        Message.objects.create(text="x")
        Message.objects.create(text="y")
        assert events == []  # as in any open transaction
    reads = [
        len,
        list,
        bool,
        lambda events: events[0],
        lambda events: events == [],
        lambda events: events != [],
        lambda events: None in events,
    ]
    for read in reads:
        with pytest.raises(RuntimeError, match=r"2 changes.*captureOnCommitCallbacks\(execute="):
            read(events)


@pytest.mark.django_db
def test_capture_events_of_a_broadcast_without_commit_says_so():
    with capture_events() as events:
        broadcast("room", "x")
    with pytest.raises(RuntimeError, match="0 changes were"):
        len(events)


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.django_db
def test_capture_events_in_a_test_case(django_capture_on_commit_callbacks, settings, durable):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"messages": {"model": "app.Message", "durable": durable}}
    }
    for text in ("x", "y"):
        with capture_events() as events, django_capture_on_commit_callbacks(execute=True):
            Message.objects.create(text=text)
        assert [e.after["text"] for e in events] == [text]


@pytest.mark.django_db
def test_capture_events_is_empty_if_nothing_is_to_be_committed():
    with capture_events() as events:
        pass
    assert events == []
    Message.objects.create(text="before")
    with capture_events() as events:
        with suppress(ValueError), transaction.atomic():
            Message.objects.create(text="x")
            raise ValueError
        with capture_disabled():
            Message.objects.create(text="y")
    assert events == []


@pytest.mark.django_db(transaction=True)
def test_capture_events_after_a_rollback_is_empty():
    with capture_events() as events, suppress(ValueError), transaction.atomic():
        Message.objects.create(text="x")
        raise ValueError
    assert events == []


@pytest.mark.django_db
def test_callbacks_that_the_app_registers(django_capture_on_commit_callbacks):
    """The documented ones: one for each collection, however many rows are written."""
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        Message.objects.create(text="x")
        Message.objects.create(text="y")
        Message.objects.update(text="z")
    assert len(callbacks) == 1


def test_helpers_can_be_imported_without_pytest():
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import django; django.setup()\n"
        "from django_cocobase_realtime.testing import capture_events, connect"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("durable", [True, False])
async def test_events_lost_by_lossy_layer_are_delivered_from_the_log(
    realtime, api_key, settings, durable
):
    posts = {"model": "app.Post", "durable": durable}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": posts}}
    backend = f"{LossyChannelLayer.__module__}.{LossyChannelLayer.__qualname__}"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": {"loss": 0.5, "seed": 1}}}
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        for n in range(40):
            await Post.objects.acreate(title=str(n))
            await asyncio.sleep(0)
        titles = []
        while not await client.receive_nothing(0.2):
            titles.append(int((await client.receive("event"))["document"]["data"]["title"]))
        assert titles == sorted(titles)
        assert len(titles) == 40 if durable else 0 < len(titles) < 40
