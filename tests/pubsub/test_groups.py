"""Membership in the layer's groups: joined while acquired, whatever happens at the same time."""

import asyncio
from contextlib import suppress

import pytest

from django_cocobase_realtime.pubsub import groups as groups_module
from django_cocobase_realtime.pubsub.groups import GroupMemberships
from django_cocobase_realtime.pubsub.layer import LayerChannel


class SlowChannel:
    """A layer's channel whose calls take some time, so that a later call may be done first."""

    def __init__(self, *, joining=0.0, leaving=0.0):
        self.joining = joining
        self.leaving = leaving
        self.groups = set()
        self.calls = []
        self.broken = False

    async def join(self, group):
        self.calls.append(("join", group))
        await asyncio.sleep(self.joining)
        self.groups.add(group)

    async def leave(self, group):
        self.calls.append(("leave", group))
        if self.broken:  # the call fails but takes effect later
            asyncio.get_running_loop().call_later(0.1, self.groups.discard, group)
            raise TimeoutError
        await asyncio.sleep(self.leaving)
        self.groups.discard(group)

    async def wait_until_leaving(self, group):
        async with asyncio.timeout(5):
            while ("leave", group) not in self.calls:
                await asyncio.sleep(0.005)

    async def receive(self):
        await asyncio.Event().wait()

    async def has_lost_groups(self):
        return False


@pytest.fixture
async def groups(monkeypatch):
    """Start group memberships on a channel."""
    tasks = []
    monkeypatch.setattr(groups_module, "SWEEP_INTERVAL", 0.05)

    async def start(channel):
        async def open_channel(origin=""):
            return channel

        monkeypatch.setattr(LayerChannel, "open", open_channel)
        memberships = GroupMemberships(lambda payload: None)
        tasks.extend(
            asyncio.create_task(task()) for task in (memberships.listen, memberships.sweep)
        )
        await asyncio.sleep(0)
        return memberships

    yield start
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)


async def test_group_acquired_during_sweep_is_not_left(groups):
    """The sweep leaves many groups; one that it has not reached yet is acquired again."""
    channel = SlowChannel(leaving=0.02)
    memberships = await groups(channel)
    names = [f"g{n}" for n in range(10)]
    for name in names:
        await memberships.acquire(name)
    for name in names:
        memberships.release(name)
    await channel.wait_until_leaving("g0")
    await memberships.acquire("g9")
    await asyncio.sleep(0.4)
    assert channel.groups == {"g9"}
    memberships.release("g9")  # the reference count is still right
    await memberships.acquire("g9")
    await asyncio.sleep(0.2)
    assert channel.groups == {"g9"}


async def test_group_acquired_while_being_left_is_joined_afterwards(groups):
    """Two calls to Redis use two connections: the later call may be done first."""
    channel = SlowChannel(leaving=0.1)
    memberships = await groups(channel)
    await memberships.acquire("g")
    memberships.release("g")
    await channel.wait_until_leaving("g")
    await memberships.acquire("g")
    await asyncio.sleep(0.3)
    assert channel.groups == {"g"}


async def test_group_is_joined_again_after_failed_leave(groups):
    channel = SlowChannel()
    memberships = await groups(channel)
    await memberships.acquire("g")
    channel.broken = True
    memberships.release("g")
    await channel.wait_until_leaving("g")
    channel.broken = False
    await memberships.acquire("g")
    await asyncio.sleep(0.5)
    assert channel.groups == {"g"}


async def test_released_groups_are_removed_without_layer(groups):
    memberships = await groups(None)
    for number in range(100):
        await memberships.acquire(f"g{number}", 0.1)
        memberships.release(f"g{number}")
    await asyncio.sleep(0.2)
    assert len(memberships) == 0
