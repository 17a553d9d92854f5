"""What is left of rooms when connections, servers and their leases end: nothing, or all of it."""

import asyncio
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from django_cocobase_realtime.models import PresenceConnection, PresenceRoom, PresenceServer
from django_cocobase_realtime.presence import base as backends
from tests.support.rooms import SHORT_TIMES, configure


@pytest.mark.parametrize("where", ["groups", "backend"])
async def test_a_connection_that_is_closed_while_it_joins_leaves_no_ghost(
    realtime, user, bob, settings, monkeypatch, where
):
    from django_cocobase_realtime import disconnect
    from django_cocobase_realtime.presence.database import DatabasePresence
    from django_cocobase_realtime.pubsub.groups import GroupMemberships

    configure(settings, {})
    need, enter = GroupMemberships.acquire, DatabasePresence.enter

    async def slow_need(self, *args):
        await need(self, *args)
        await asyncio.sleep(0.5)

    def slow_enter(self, *args, **options):
        time.sleep(0.5)
        return enter(self, *args, **options)

    async with realtime(user=bob) as other, realtime(user=user) as ada:
        await other.join("second")
        if where == "groups":
            monkeypatch.setattr(GroupMemberships, "acquire", slow_need)
        else:
            monkeypatch.setattr(DatabasePresence, "enter", slow_enter)
        await ada.send({"type": "join", "room": "second"})
        await asyncio.sleep(0.2)
        await sync_to_async(disconnect)(user=user)
        assert await ada.closed() == 4500
        await asyncio.sleep(1)
        assert await PresenceConnection.objects.acount() == 1


async def test_nothing_is_left_behind(realtime, user, settings):
    configure(settings, {})
    async with realtime(user=user) as ada:
        for number in range(5):
            await ada.join(f"r{number}")
        assert await PresenceConnection.objects.acount() == 5
        for number in range(5):
            await ada.request({"type": "leave", "room": f"r{number}"})
        assert await PresenceConnection.objects.acount() == 0


async def test_a_lost_lease_is_taken_again(realtime, user, bob, settings):
    """As after a long stall, or where somebody emptied the tables."""
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


async def test_a_lease_that_is_taken_again_in_part_is_taken_again_in_whole(
    realtime, user, bob, settings, monkeypatch
):
    """The backend fails between the first and the last of those who are entered again."""
    settings.COCOBASE_REALTIME = {"PRESENCE": SHORT_TIMES}
    async with realtime(user=user) as ada, realtime(user=bob) as other:
        await ada.join("r")
        await other.join("r")
        await ada.receive("presence")
        backend, entered = type(backends.get_backend()), []
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
