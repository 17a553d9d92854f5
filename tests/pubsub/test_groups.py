"""Groups of the layer: joined as long as somebody needs them, whatever happens meanwhile."""

import asyncio
from contextlib import suppress

import pytest

from django_cocobase_realtime.pubsub import groups as membership
from django_cocobase_realtime.pubsub.groups import GroupMemberships
from django_cocobase_realtime.pubsub.layer import LayerChannel


class SlowInbox:
    """An inbox of a layer that does what it is told, but later; two calls may pass each other."""

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
        if self.broken:  # told, but nobody answers: it is done by and by
            asyncio.get_running_loop().call_later(0.1, self.groups.discard, group)
            raise TimeoutError
        await asyncio.sleep(self.leaving)
        self.groups.discard(group)

    async def is_leaving(self, group):
        async with asyncio.timeout(5):
            while ("leave", group) not in self.calls:
                await asyncio.sleep(0.005)

    async def receive(self):
        await asyncio.Event().wait()


@pytest.fixture
async def groups(monkeypatch):
    """Starts a membership with an inbox."""
    tasks = []
    monkeypatch.setattr(membership, "SWEEP_INTERVAL", 0.05)

    async def start(inbox):
        async def opened(origin=""):
            return inbox

        monkeypatch.setattr(LayerChannel, "open", opened)
        made = GroupMemberships(lambda payload: None)
        tasks.extend(asyncio.create_task(work()) for work in (made.listen, made.sweep))
        await asyncio.sleep(0)
        return made

    yield start
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)


async def test_a_group_that_is_needed_again_during_a_sweep_stays(groups):
    """The sweep has much to leave; meanwhile somebody comes back to one that it has not left."""
    inbox = SlowInbox(leaving=0.02)
    made = await groups(inbox)
    names = [f"g{n}" for n in range(10)]
    for name in names:
        await made.acquire(name)
    for name in names:
        made.release(name)
    await inbox.is_leaving("g0")
    await made.acquire("g9")
    await asyncio.sleep(0.4)
    assert inbox.groups == {"g9"}
    made.release("g9")  # and it is counted right
    await made.acquire("g9")
    await asyncio.sleep(0.2)
    assert inbox.groups == {"g9"}


async def test_a_group_that_is_needed_while_it_is_left_is_joined_after_that(groups):
    """Two calls to a Redis go over two connections: the later one may be done first."""
    inbox = SlowInbox(leaving=0.1)
    made = await groups(inbox)
    await made.acquire("g")
    made.release("g")
    await inbox.is_leaving("g")
    await made.acquire("g")
    await asyncio.sleep(0.3)
    assert inbox.groups == {"g"}


async def test_a_group_is_joined_again_where_nobody_knows_whether_it_was_left(groups):
    inbox = SlowInbox()
    made = await groups(inbox)
    await made.acquire("g")
    inbox.broken = True
    made.release("g")
    await inbox.is_leaving("g")
    inbox.broken = False
    await made.acquire("g")
    await asyncio.sleep(0.5)
    assert inbox.groups == {"g"}


async def test_groups_of_long_ago_are_forgotten_without_a_layer(groups):
    made = await groups(None)
    for number in range(100):
        await made.acquire(f"g{number}", 0.1)
        made.release(f"g{number}")
    await asyncio.sleep(0.2)
    assert len(made) == 0
