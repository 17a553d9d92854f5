"""The test helpers of the package."""

import asyncio
import subprocess
import sys

import pytest

from django_cocobase_realtime.testing import LossyChannelLayer, capture_events
from tests.app.models import Message, Post
from tests.support.servers import ROOT


@pytest.mark.django_db(transaction=True)
def test_capture_events_collects_committed_changes():
    with capture_events() as events:
        Message.objects.create(text="x")
    Message.objects.create(text="y")
    assert [e.after["text"] for e in events] == ["x"]


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
