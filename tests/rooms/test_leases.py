"""A server's lease, and answers that are lost."""

import asyncio
import threading
import time

import pytest
from django.db import OperationalError

from django_cocobase_realtime.conf import PresenceSettings
from django_cocobase_realtime.events import PresenceChange
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.models import PresenceConnection, PresenceRoom, PresenceServer
from django_cocobase_realtime.presence import redis as redis_backend
from django_cocobase_realtime.presence.base import PresenceUnavailable
from django_cocobase_realtime.presence.database import DatabasePresence
from django_cocobase_realtime.presence.redis import RedisPresence

pytestmark = pytest.mark.django_db(transaction=True)


async def test_a_lease_whose_loss_was_told_to_nobody_is_taken_again_in_whole(
    realtime, user, settings, monkeypatch
):
    """It was lost, taken anew, and the answer that said so never came."""
    settings.COCOBASE_REALTIME = {"PRESENCE": {"LEASE": 3.0, "GRACE": 1.0}}
    renew, failed = DatabasePresence.renew_lease, []

    def answer_lost(self, *args):
        held = renew(self, *args)
        if not held and not failed:
            failed.append(args)
            raise OperationalError("the connection is gone")
        return held

    async with realtime(user=user) as ada:
        await ada.join("r")
        monkeypatch.setattr(DatabasePresence, "renew_lease", answer_lost)
        await PresenceServer.objects.all().adelete()
        await PresenceRoom.objects.all().adelete()
        async with asyncio.timeout(10):
            while not await PresenceConnection.objects.acount():
                await asyncio.sleep(0.1)
        assert failed


async def test_whoever_is_entered_again_knows_how_many_there_are(realtime, user, api_key, settings):
    """As another process announces it that held them for gone."""
    async with realtime(user=user) as ada, realtime(token=api_key) as other:
        await ada.join("r")
        await other.join("r")
        await ada.receive("presence")
        members = Hub.current().rooms.members
        (local,) = Hub.current().rooms.rooms.values()
        version, (one, two) = local.version, local.members.values()
        for number, (event, member, participants) in enumerate(
            [("left", one, 1), ("left", two, 0), ("joined", two, 1), ("joined", one, 2)], 1
        ):
            key = (*local.key, event, member, participants, version + number)
            members.receive(PresenceChange(*key))
        frames = [await ada.receive("presence") for _ in "abc"]
        assert [(f["event"], f["participants"]) for f in frames] == [
            ("left", 0),
            ("joined", 1),
            ("updated", 2),
        ]
        frames = [await other.receive("presence") for _ in "abc"]
        assert [f["participants"] for f in frames] == [1, 1, 2]


def test_redis_is_not_asked_twice_behind_our_back(redis, monkeypatch):
    """What it answered first may be what matters."""
    monkeypatch.setattr(redis_backend, "TIMEOUT", 0.5)
    backend = RedisPresence(PresenceSettings(url=redis.url))
    assert backend.renew_lease("server", 10) is False
    redis.suspend()
    thaw = threading.Timer(4, redis.resume)
    thaw.start()
    began = time.monotonic()
    with pytest.raises(PresenceUnavailable):
        backend.renew_lease("server", 10)
    assert time.monotonic() - began < 2
    redis.resume()
    thaw.cancel()
    thaw.join()
    backend.close()
