"""A process that sleeps while the log is trimmed."""

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.log.retention import trim
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent

pytestmark = pytest.mark.django_db(transaction=True)


async def test_whoever_missed_all_that_was_trimmed_is_told(realtime, api_key, settings):
    """Not only when something new happens: that may be never."""
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LOG": {"POLL": 3600},  # it sleeps
    }

    def meanwhile():
        for number in range(3):
            LogEvent.objects.create(
                collection="posts",
                transaction_id=str(number),
                op="created",
                document_id=str(number),
                after="{}",
            )
        sequence("default", "posts")
        trim("default", max_age=None, max_events=0)

    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await sync_to_async(meanwhile)()
        Hub.current().topics.notify("posts")
        assert await client.closed() == 4121
