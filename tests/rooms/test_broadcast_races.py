"""Broadcasts while databases, layers and clients fail: said once, or told to be said again."""

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


def fails_in_between():
    """An ``append`` before which the database goes away from whoever has claimed the key."""
    append = history.append
    held, over = threading.Event(), threading.Event()

    def other_writer():
        try:
            with transaction.atomic():
                Claim.objects.create(name="other", expires_at=0)
                held.set()
                over.wait(1)
        finally:
            connections.close_all()

    def append_late(event, kept):
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            cursor.execute("PRAGMA busy_timeout = 100")  # seconds, in a project
        thread = threading.Thread(target=other_writer)
        thread.start()
        held.wait(0.5)
        return append(event, kept)

    return append_late


async def test_a_broadcast_that_could_not_be_kept_is_not_taken_for_said(settings, monkeypatch):
    settings.COCOBASE_REALTIME = {"ROOMS": {"kept": {"history": 5}}}
    with monkeypatch.context() as patched:
        patched.setattr(history, "append", fails_in_between())
        with contextlib.suppress(DatabaseError):
            await abroadcast("kept", 1, idempotency_key="k")
    await asyncio.sleep(1.2)  # the other one is done
    await abroadcast("kept", 1, idempotency_key="k")  # as clients do
    assert await RoomMessage.objects.acount() == 1


async def test_whoever_says_something_may_be_gone_before_it_is_said(realtime, user, monkeypatch):
    claim, claimed = DatabasePresence.acquire_key, threading.Event()

    def slow_claim(self, *args):
        made = claim(self, *args)
        claimed.set()
        time.sleep(0.3)
        return made

    monkeypatch.setattr(DatabasePresence, "acquire_key", slow_claim)
    async with realtime(user=user) as ada:
        await ada.join("r")
        saying = asyncio.create_task(abroadcast("r", 1, idempotency_key="k"))
        await asyncio.to_thread(claimed.wait, 5)
        saying.cancel()
        assert (await ada.receive("event"))["message"] == 1


class Gate(InMemoryChannelLayer):
    """Takes nothing before it is opened."""

    open = asyncio.Event()
    sent: list[object] = []

    async def group_send(self, group, message):
        await self.open.wait()
        self.sent.extend(message["events"])


async def test_what_was_told_to_have_failed_is_not_sent_later(settings):
    backend = f"{Gate.__module__}.{Gate.__qualname__}"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    Gate.open, Gate.sent = asyncio.Event(), []
    broker = Broker()
    broker.attach(asyncio.get_running_loop())

    def event(n):
        return Broadcast(room=f"r{n}", project="default", message=n, at="now")

    broker.publish(event(0))
    await asyncio.sleep(0.05)  # it is on its way, and stuck
    assert not await broker.send(event(1), timeout=0.1)
    broker.publish(event(2))
    Gate.open.set()
    async with asyncio.timeout(5):
        while len(Gate.sent) < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert [b'"message":%d' % n in sent for n, sent in zip((0, 2), Gate.sent, strict=True)]
    assert len(Gate.sent) == 2
    broker.detach(asyncio.get_running_loop())


async def test_order_is_kept_when_a_hub_goes_to_rest(settings):
    """What it was sending goes on; what is published then follows."""
    backend = f"{Gate.__module__}.{Gate.__qualname__}"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    Gate.open, Gate.sent = asyncio.Event(), []
    broker, loop = Broker(), asyncio.get_running_loop()
    calls = []

    async def group_send(self, group, message):
        calls.append(threading.current_thread())
        while not Gate.open.is_set():
            await asyncio.sleep(0.01)
        Gate.sent.extend(message["events"])

    Gate.group_send = group_send
    broker.attach(loop)
    broker.publish(Broadcast(room="r", project="default", message=1, at="now"))
    await asyncio.sleep(0.05)
    broker.detach(loop)
    broker.publish(Broadcast(room="r", project="default", message=2, at="now"))
    await asyncio.sleep(0.2)
    assert len(calls) == 1  # the second waits for the first
    Gate.open.set()
    async with asyncio.timeout(5):
        while len(Gate.sent) < 2:
            await asyncio.sleep(0.01)


async def test_who_could_not_be_taken_off_the_list_is_taken_off_later(realtime, user, monkeypatch):
    """He stays in the room, unlisted; what failed is told again by and by."""
    leave, failed = DatabasePresence.leave, []

    def fails_once(self, *args):
        if not failed:
            failed.append(args)
            raise OperationalError("database is locked")
        return leave(self, *args)

    async with realtime(user=user) as ada:
        await ada.join("r")
        monkeypatch.setattr(DatabasePresence, "leave", fails_once)
        await ada.send({"type": "join", "room": "r", "presence": False})
        assert await ada.closed() == 4101
        async with asyncio.timeout(10):
            while await PresenceConnection.objects.acount():
                await asyncio.sleep(0.05)
