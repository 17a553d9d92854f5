"""A server's lease when answers of the backend are lost or late."""

import asyncio
import threading
import time

import pytest
from django.db import OperationalError

from django_cocobase_realtime.events import PresenceChange
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.models import PresenceConnection, PresenceRoom, PresenceServer
from django_cocobase_realtime.options import PresenceSettings
from django_cocobase_realtime.presence import redis_hosts
from django_cocobase_realtime.presence.base import PresenceUnavailable
from django_cocobase_realtime.presence.database import DatabasePresence
from django_cocobase_realtime.presence.redis import RedisPresence

pytestmark = pytest.mark.django_db(transaction=True)


async def test_members_are_entered_again_when_answer_of_renewal_is_lost(
    realtime, user, settings, monkeypatch
):
    """The lease was lost and acquired again, but the answer that reports it did not arrive."""
    settings.COCOBASE_REALTIME = {"PRESENCE": {"LEASE": 3.0, "GRACE": 1.0}}
    renew, failed = DatabasePresence.renew_lease, []

    def lose_answer(self, *args):
        held = renew(self, *args)
        if not held and not failed:
            failed.append(args)
            raise OperationalError("the connection is gone")
        return held

    async with realtime(user=user) as ada:
        await ada.join("r")
        monkeypatch.setattr(DatabasePresence, "renew_lease", lose_answer)
        await PresenceServer.objects.all().adelete()
        await PresenceRoom.objects.all().adelete()
        async with asyncio.timeout(10):
            while not await PresenceConnection.objects.acount():
                await asyncio.sleep(0.1)
        assert failed


async def test_member_entered_again_receives_current_participants(
    realtime, user, api_key, settings
):
    """Another process announces that both members left and joined again."""
    async with realtime(user=user) as ada, realtime(token=api_key) as other:
        await ada.join("r")
        await other.join("r")
        await ada.receive("presence")
        members = Hub.current().rooms.presence
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


def test_redis_commands_are_not_retried_after_timeout(redis, monkeypatch):
    """A retry could hide that the first attempt found the lease lost."""
    monkeypatch.setattr(redis_hosts, "TIMEOUT", 0.5)
    backend = RedisPresence(PresenceSettings(url=redis.url))
    assert backend.renew_lease("server", 10) is False
    redis.suspend()
    resume = threading.Timer(4, redis.resume)
    resume.start()
    began = time.monotonic()
    with pytest.raises(PresenceUnavailable):
        backend.renew_lease("server", 10)
    assert time.monotonic() - began < 2
    redis.resume()
    resume.cancel()
    resume.join()
    backend.close()
