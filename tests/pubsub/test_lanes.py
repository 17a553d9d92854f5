"""Messages to a layer with several hosts, one of which does not answer."""

import asyncio
import time

import pytest
from channels.layers import InMemoryChannelLayer

from django_cocobase_realtime.events import Broadcast, decode
from django_cocobase_realtime.pubsub import lanes
from django_cocobase_realtime.pubsub.broker import Broker
from django_cocobase_realtime.pubsub.layer import room_group

HOSTS = ["redis://one", "redis://two"]
SUSPENDED = "suspended"


class PartlySuspendedLayer(InMemoryChannelLayer):
    """Does not answer to messages to the room `SUSPENDED` until ``resumed`` is set."""

    def __init__(self, hosts=(), **options):
        super().__init__(**options)
        self.resumed = asyncio.Event()
        self.sent = []

    async def group_send(self, group, message):
        if group == room_group("p", SUSPENDED):
            await self.resumed.wait()
        self.sent += [(event.room, event.message) for event in map(decode, message["events"])]


@pytest.fixture
def layer(settings):
    from channels.layers import get_channel_layer

    backend = f"{__name__}.{PartlySuspendedLayer.__name__}"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": {"hosts": HOSTS}}}
    return get_channel_layer()


def broadcast(room, number):
    return Broadcast(room=room, project="p", message=number, at="2030-01-01T00:00:00Z")


async def wait_for(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_host_that_does_not_answer_delays_only_messages_to_its_groups(layer):
    broker = Broker()
    broker.attach(asyncio.get_running_loop())
    started_at = time.monotonic()
    for number in range(50):
        for room in (SUSPENDED, "a", "b"):
            broker.publish(broadcast(room, number))
        await asyncio.sleep(0.001)
    await wait_for(lambda: len(layer.sent) == 100)
    assert time.monotonic() - started_at < 2
    assert not broker.flush(0)
    layer.resumed.set()
    await wait_for(lambda: broker.flush(0))
    assert broker.dropped == 0
    for room in (SUSPENDED, "a", "b"):
        assert [number for name, number in layer.sent if name == room] == list(range(50))


async def test_messages_that_wait_for_a_group_are_limited(layer, monkeypatch):
    monkeypatch.setattr(lanes, "MAX_WAITING", 3)
    broker = Broker()
    broker.attach(asyncio.get_running_loop())
    for number in range(10):
        broker.publish(broadcast(SUSPENDED, number))
        await wait_for(lambda: not broker._outbox)
        await asyncio.sleep(lanes.PATIENCE * 1.5 if number == 0 else 0)
    layer.resumed.set()
    await wait_for(lambda: broker.flush(0))
    assert [number for _, number in layer.sent] == [0, 7, 8, 9]


async def test_waiting_senders_are_answered_if_the_task_of_a_group_is_cancelled(layer):
    broker = Broker()
    broker.attach(asyncio.get_running_loop())
    sends = [asyncio.create_task(broker.send(broadcast(SUSPENDED, n))) for n in range(3)]
    await asyncio.sleep(lanes.PATIENCE * 2)
    for task in asyncio.all_tasks():
        if task.get_coro().__qualname__ == "Lanes._run":
            task.cancel()
    assert await asyncio.gather(*sends) == [False] * 3
    assert broker.flush(0)
