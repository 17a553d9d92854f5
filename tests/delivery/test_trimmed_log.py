"""A process that misses events because the log is trimmed before it reads them."""

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.log.retention import trim
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent

pytestmark = pytest.mark.django_db(transaction=True)


async def test_connection_is_closed_when_unread_events_were_trimmed(realtime, api_key, settings):
    """Without waiting for a new event, which may never come."""
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LOG": {"POLL": 3600},  # the process does not poll during the test
    }

    @transaction.atomic  # so that the process cannot read the events in between
    def append_and_trim():
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
        await sync_to_async(append_and_trim)()
        Hub.current().topics.notify("posts")
        assert await client.closed() == 4121
