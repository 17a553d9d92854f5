"""The hub's own tasks, and its rest after the last connection."""

import asyncio
import threading
import time

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from django_cocobase_realtime import disconnect
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.models import ApiKey, PresenceConnection
from django_cocobase_realtime.permissions import Permission
from django_cocobase_realtime.presence.database import DatabasePresence
from tests.app.models import Post
from tests.support.sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)


async def test_a_task_that_stumbles_begins_anew(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {"REVOCATION_POLL": 0.1}
    async with realtime(token=api_key) as client:
        settings.COCOBASE_REALTIME = {"REVOCATION_POLL": "soon"}
        await asyncio.sleep(0.5)
        settings.COCOBASE_REALTIME = {"REVOCATION_POLL": 0.1}
        await ApiKey.objects.aupdate(revoked_at=timezone.now())  # which no signal tells
        assert await client.closed() == 4500


async def test_a_hub_that_goes_to_rest_tells_all_who_left(user, monkeypatch):
    """Also where the last client is gone before it has done so."""
    leave = DatabasePresence.leave

    def slow_leave(self, *args):
        time.sleep(0.3)
        return leave(self, *args)

    async with open_socket(user=user) as socket:
        for number in range(3):
            await socket.send_frame(type="join", room=f"r{number}")
        await socket.wait_until(lambda: len(socket.frames_of_type("joined")) == 3)
        hub = Hub.current()
        thread = hub.rooms.presence._thread
        monkeypatch.setattr(DatabasePresence, "leave", slow_leave)
        await sync_to_async(disconnect)(user=user)
        await socket.wait_until(lambda: Hub.current() is not hub)
        await asyncio.sleep(0.1)
    async with asyncio.timeout(5):
        while await PresenceConnection.objects.acount():
            await asyncio.sleep(0.05)
        while not thread._thread._shutdown or len(hub.groups):
            await asyncio.sleep(0.05)


async def test_a_hub_of_before_takes_nothing_from_the_one_that_followed(
    realtime, user, api_key, settings
):
    """A request outlives its hub's rest, and leaves something to tidy up."""
    path = "tests.hub.test_hub_lifecycle.Slow"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post", "slow": {"model": "app.Message", "permission": path}},
        "LOG": {"POLL": 3600},
    }
    Slow.go_on.clear()
    async with open_socket(user=user) as socket:
        await socket.send_frame(type="subscribe", collection="slow")
        await asyncio.sleep(0.2)
        first = Hub.current()
        await sync_to_async(disconnect)(user=user)
        await socket.wait_until(lambda: socket.close_code is not None)
        async with realtime(token=api_key) as other:
            await other.subscribe("posts")
            assert Hub.current() is not first
            Slow.go_on.set()
            await socket.wait_until(lambda: first.topics.has_threads)
            await socket.incoming.put({"type": "websocket.disconnect", "code": 1005})
            await socket.wait_until(lambda: not first.topics.has_threads)
            await Post.objects.acreate(title="x")
            assert (await other.receive("event"))["document"]["data"]["title"] == "x"


class Slow(Permission):
    go_on = threading.Event()

    def can_subscribe(self, identity, filters):
        self.go_on.wait(10)
        return True
