"""A server's lease, and answers that are lost."""

import asyncio
import threading
import time

import pytest
from django.db import OperationalError

from django_cocobase_realtime.conf import PresenceSettings
from django_cocobase_realtime.models import PresenceConnection, PresenceRoom, PresenceServer
from django_cocobase_realtime.rooms import redis as redis_backend
from django_cocobase_realtime.rooms.database import DatabasePresence
from django_cocobase_realtime.rooms.presence import PresenceUnavailable
from django_cocobase_realtime.rooms.redis import RedisPresence

pytestmark = pytest.mark.django_db(transaction=True)


async def test_a_lease_whose_loss_was_told_to_nobody_is_taken_again_in_whole(
    realtime, user, settings, monkeypatch
):
    """It was lost, taken anew, and the answer that said so never came."""
    settings.COCOBASE_REALTIME = {"PRESENCE": {"LEASE": 3.0, "GRACE": 1.0}}
    renew, failed = DatabasePresence.renew, []

    def answer_lost(self, *args):
        held = renew(self, *args)
        if not held and not failed:
            failed.append(args)
            raise OperationalError("the connection is gone")
        return held

    async with realtime(user=user) as ada:
        await ada.join("r")
        monkeypatch.setattr(DatabasePresence, "renew", answer_lost)
        await PresenceServer.objects.all().adelete()
        await PresenceRoom.objects.all().adelete()
        async with asyncio.timeout(10):
            while not await PresenceConnection.objects.acount():
                await asyncio.sleep(0.1)
        assert failed


def test_redis_is_not_asked_twice_behind_our_back(redis, monkeypatch):
    """What it answered first may be what matters."""
    monkeypatch.setattr(redis_backend, "TIMEOUT", 0.5)
    backend = RedisPresence(PresenceSettings(url=redis.url))
    assert backend.renew("server", 10) is False
    redis.freeze()
    thaw = threading.Timer(4, redis.thaw)
    thaw.start()
    began = time.monotonic()
    with pytest.raises(PresenceUnavailable):
        backend.renew("server", 10)
    assert time.monotonic() - began < 2
    redis.thaw()
    thaw.cancel()
    thaw.join()
    backend.close()
