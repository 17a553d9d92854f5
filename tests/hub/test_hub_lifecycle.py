"""The hub's background tasks, and its shutdown after the last connection."""

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
from django_cocobase_realtime.utils.concurrency import other_tasks
from tests.app.models import Post
from tests.support.sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)


async def test_background_task_is_restarted_after_exception(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {"REVOCATION_POLL": 0.1}
    async with realtime(token=api_key) as client:
        settings.COCOBASE_REALTIME = {"REVOCATION_POLL": "soon"}
        await asyncio.sleep(0.5)
        settings.COCOBASE_REALTIME = {"REVOCATION_POLL": 0.1}
        await ApiKey.objects.aupdate(revoked_at=timezone.now())  # sends no signal
        assert await client.closed() == 4500


async def test_hub_shutdown_removes_presence_of_all_connections(user, monkeypatch):
    """Also if the last client has disconnected before that is done."""
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
        while thread._thread.is_alive() or len(hub.groups):
            await asyncio.sleep(0.05)


async def test_hub_replaced_while_request_is_pending(realtime, user, api_key, settings):
    """The request is cancelled; its cleanup does not affect the new hub."""
    path = "tests.hub.test_hub_lifecycle.BlockingPermission"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post", "slow": {"model": "app.Message", "permission": path}},
        "LOG": {"POLL": 3600},
    }
    BlockingPermission.release.clear()
    async with open_socket(user=user) as socket:
        await socket.send_frame(type="subscribe", collection="slow")
        await asyncio.sleep(0.2)
        first = Hub.current()
        await sync_to_async(disconnect)(user=user)
        await socket.wait_until(lambda: socket.close_code is not None)
        async with realtime(token=api_key) as other:
            await other.subscribe("posts")
            assert Hub.current() is not first
            BlockingPermission.release.set()
            await asyncio.sleep(0.2)
            assert not first.topics.has_readers
            await socket.incoming.put({"type": "websocket.disconnect", "code": 1005})
            await Post.objects.acreate(title="x")
            assert (await other.receive("event"))["document"]["data"]["title"] == "x"


@pytest.fixture
async def hub(user):
    """A hub that was shut down after its last connection has left a room."""
    async with open_socket(user=user) as socket:
        await socket.send_frame(type="join", room="lobby")
        await socket.wait_for_frame("joined")
        hub = Hub.current()
        (hub.last_connection,) = hub.connections.values()
    assert not hub.rooms.has_threads
    return hub


async def test_join_that_outlasts_the_shutdown_leaves_no_thread(hub):
    await hub.rooms.presence.call(int)  # as a join does that was in progress
    assert hub.rooms.has_threads
    await hub.close(hub.last_connection)  # as the connection does after its last request
    assert not hub.rooms.has_threads


async def test_shutdown_that_is_cancelled_leaves_no_thread(hub):
    await hub.rooms.presence.call(int)
    closing = asyncio.create_task(hub.close(hub.last_connection))
    while not (tasks := other_tasks()):
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # the shutdown begins
    for task in tasks:
        task.cancel()  # as an event loop does when it ends
    await asyncio.gather(closing, *tasks, return_exceptions=True)
    assert not hub.rooms.has_threads


class BlockingPermission(Permission):
    release = threading.Event()

    def can_subscribe(self, identity, filters):
        self.release.wait(10)
        return True


async def test_last_connection_stops_all_tasks(realtime, api_key):
    before = len(asyncio.all_tasks())
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        assert len(asyncio.all_tasks()) > before
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) == before
