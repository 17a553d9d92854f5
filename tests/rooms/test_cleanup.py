"""Presence after connections close, leases are lost and the backend fails."""

import asyncio
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from django_cocobase_realtime.models import PresenceConnection, PresenceRoom, PresenceServer
from django_cocobase_realtime.presence import base as presence_base
from tests.support.rooms import SHORT_TIMES, configure


@pytest.mark.parametrize("slow", ["groups", "backend"])
async def test_connection_closed_while_joining_leaves_no_entry(
    realtime, user, bob, settings, monkeypatch, slow
):
    from django_cocobase_realtime import disconnect
    from django_cocobase_realtime.presence.database import DatabasePresence
    from django_cocobase_realtime.pubsub.groups import GroupMemberships

    configure(settings, {})
    acquire, enter = GroupMemberships.acquire, DatabasePresence.enter

    async def slow_acquire(self, *args):
        await acquire(self, *args)
        await asyncio.sleep(0.5)

    def slow_enter(self, *args, **options):
        time.sleep(0.5)
        return enter(self, *args, **options)

    async with realtime(user=bob) as other, realtime(user=user) as ada:
        await other.join("second")
        if slow == "groups":
            monkeypatch.setattr(GroupMemberships, "acquire", slow_acquire)
        else:
            monkeypatch.setattr(DatabasePresence, "enter", slow_enter)
        await ada.send({"type": "join", "room": "second"})
        await asyncio.sleep(0.2)
        await sync_to_async(disconnect)(user=user)
        assert await ada.closed() == 4500
        await asyncio.sleep(1)
        assert await PresenceConnection.objects.acount() == 1


async def test_left_rooms_have_no_entries(realtime, user, settings):
    configure(settings, {})
    async with realtime(user=user) as ada:
        for number in range(5):
            await ada.join(f"r{number}")
        assert await PresenceConnection.objects.acount() == 5
        for number in range(5):
            await ada.request({"type": "leave", "room": f"r{number}"})
        assert await PresenceConnection.objects.acount() == 0


async def test_lost_lease_is_acquired_again_with_all_members(realtime, user, bob, settings):
    """As after a long stall of the process, or after the tables were emptied."""
    settings.COCOBASE_REALTIME = {"PRESENCE": SHORT_TIMES}
    async with realtime(user=user) as ada, realtime(user=bob) as other:
        await ada.join("r", state={"a": 1})
        await other.join("r")
        await ada.receive("presence")
        await PresenceServer.objects.all().adelete()
        await PresenceRoom.objects.all().adelete()
        async with asyncio.timeout(10):
            while await PresenceConnection.objects.acount() < 2:
                await asyncio.sleep(0.1)
        async with realtime(user=bob) as again:
            reply = await again.join("r")
            assert {m["name"]: m["state"] for m in reply["members"]} == {
                "ada": {"a": 1},
                "bob": {},
            }


async def test_reentering_members_is_retried_after_partial_failure(
    realtime, user, bob, settings, monkeypatch
):
    """The backend fails after the first of two members has been entered again."""
    settings.COCOBASE_REALTIME = {"PRESENCE": SHORT_TIMES}
    async with realtime(user=user) as ada, realtime(user=bob) as other:
        await ada.join("r")
        await other.join("r")
        await ada.receive("presence")
        backend, entered = type(presence_base.get_backend()), []
        enter = backend.enter

        def failing(self, entry, **options):
            entered.append(entry.member)
            if len(entered) == 2:
                raise OperationalError("database is locked")
            return enter(self, entry, **options)

        monkeypatch.setattr(backend, "enter", failing)
        await PresenceServer.objects.all().adelete()
        await PresenceRoom.objects.all().adelete()
        async with asyncio.timeout(10):
            while await PresenceConnection.objects.acount() < 2:
                await asyncio.sleep(0.1)
        assert entered == [str(user.pk), str(bob.pk), str(bob.pk)]
