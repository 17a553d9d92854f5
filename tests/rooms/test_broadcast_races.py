"""Broadcasts while databases, layers and clients fail: sent once, or reported as failed."""

import asyncio
import contextlib
import threading
import time

import pytest
from channels.layers import InMemoryChannelLayer
from django.db import DatabaseError, OperationalError, connection, connections, transaction

from django_cocobase_realtime import abroadcast
from django_cocobase_realtime.events import Broadcast
from django_cocobase_realtime.models import Claim, PresenceConnection, RoomMessage
from django_cocobase_realtime.presence.database import DatabasePresence
from django_cocobase_realtime.pubsub.broker import Broker
from django_cocobase_realtime.rooms import history

pytestmark = pytest.mark.django_db(transaction=True)


def failing_append():
    """Return an ``append`` that loses its connection, or on SQLite finds the database locked."""
    append = history.append
    locked, release = threading.Event(), threading.Event()

    def other_writer():
        try:
            with transaction.atomic():
                Claim.objects.create(name="other", expires_at=0)
                locked.set()
                release.wait(1)
        finally:
            connections.close_all()

    def append_after_failure(event, keep):
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            cursor.execute("PRAGMA busy_timeout = 100")  # several seconds in a project
        thread = threading.Thread(target=other_writer)
        thread.start()
        locked.wait(0.5)
        return append(event, keep)

    return append_after_failure


async def test_broadcast_that_could_not_be_stored_can_be_repeated_with_its_key(
    settings, monkeypatch
):
    settings.COCOBASE_REALTIME = {"ROOMS": {"kept": {"history": 5}}}
    with monkeypatch.context() as patched:
        patched.setattr(history, "append", failing_append())
        with contextlib.suppress(DatabaseError):
            await abroadcast("kept", 1, idempotency_key="k")
    await asyncio.sleep(1.2)  # the other writer has finished
    await abroadcast("kept", 1, idempotency_key="k")  # as a client retries
    assert await RoomMessage.objects.acount() == 1


async def test_broadcast_is_delivered_when_sender_is_cancelled(realtime, user, monkeypatch):
    acquire_key, key_acquired = DatabasePresence.acquire_key, threading.Event()

    def slow_acquire_key(self, *args):
        acquired = acquire_key(self, *args)
        key_acquired.set()
        time.sleep(0.3)
        return acquired

    monkeypatch.setattr(DatabasePresence, "acquire_key", slow_acquire_key)
    async with realtime(user=user) as ada:
        await ada.join("r")
        broadcasting = asyncio.create_task(abroadcast("r", 1, idempotency_key="k"))
        await asyncio.to_thread(key_acquired.wait, 5)
        broadcasting.cancel()
        assert (await ada.receive("event"))["message"] == 1


class GatedLayer(InMemoryChannelLayer):
    """A layer whose sends wait until ``open`` is set."""

    open = asyncio.Event()
    sent: list[object] = []

    async def group_send(self, group, message):
        await self.open.wait()
        self.sent.extend(message["events"])


async def test_event_reported_as_failed_is_not_sent_later(settings):
    backend = f"{GatedLayer.__module__}.{GatedLayer.__qualname__}"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    GatedLayer.open, GatedLayer.sent = asyncio.Event(), []
    broker = Broker()
    broker.attach(asyncio.get_running_loop())

    def event(n):
        return Broadcast(room=f"r{n}", project="default", message=n, at="now")

    broker.publish(event(0))
    await asyncio.sleep(0.05)  # it is being sent, and blocked
    assert not await broker.send(event(1), timeout=0.1)
    broker.publish(event(2))
    GatedLayer.open.set()
    async with asyncio.timeout(5):
        while len(GatedLayer.sent) < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert [b'"message":%d' % n in sent for n, sent in zip((0, 2), GatedLayer.sent, strict=True)]
    assert len(GatedLayer.sent) == 2
    broker.detach(asyncio.get_running_loop())


async def test_events_keep_their_order_when_hub_shuts_down(settings):
    """Events being sent are completed before events that are published afterwards."""
    backend = f"{GatedLayer.__module__}.{GatedLayer.__qualname__}"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    GatedLayer.open, GatedLayer.sent = asyncio.Event(), []
    broker, loop = Broker(), asyncio.get_running_loop()
    calls = []

    async def group_send(self, group, message):
        calls.append(threading.current_thread())
        while not GatedLayer.open.is_set():
            await asyncio.sleep(0.01)
        GatedLayer.sent.extend(message["events"])

    GatedLayer.group_send = group_send
    broker.attach(loop)
    broker.publish(Broadcast(room="r", project="default", message=1, at="now"))
    await asyncio.sleep(0.05)
    broker.detach(loop)
    broker.publish(Broadcast(room="r", project="default", message=2, at="now"))
    await asyncio.sleep(0.2)
    assert len(calls) == 1  # the second waits for the first
    GatedLayer.open.set()
    async with asyncio.timeout(5):
        while len(GatedLayer.sent) < 2:
            await asyncio.sleep(0.01)


async def test_failed_leave_is_retried(realtime, user, monkeypatch):
    """The connection stays in the room without presence; the failed call is repeated."""
    leave, failed = DatabasePresence.leave, []

    def fail_once(self, *args):
        if not failed:
            failed.append(args)
            raise OperationalError("database is locked")
        return leave(self, *args)

    async with realtime(user=user) as ada:
        await ada.join("r")
        monkeypatch.setattr(DatabasePresence, "leave", fail_once)
        await ada.send({"type": "join", "room": "r", "presence": False})
        assert await ada.closed() == 4101
        async with asyncio.timeout(10):
            while await PresenceConnection.objects.acount():
                await asyncio.sleep(0.05)
