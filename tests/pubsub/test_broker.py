"""The broker: publishing never blocks, whatever the channel layer does."""

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest
from channels.layers import InMemoryChannelLayer, get_channel_layer

from django_cocobase_realtime.events import Broadcast, Change, DisconnectRequested, decode, encode
from django_cocobase_realtime.pubsub import broker as broker_module
from django_cocobase_realtime.pubsub.broker import Broker, broker
from django_cocobase_realtime.pubsub.layer import LayerChannel, collection_group, room_group
from tests.support.servers import ROOT


def make_broadcast(n, room="r"):
    return Broadcast(room=room, project="default", message=n, at="now")


class HangingLayer(InMemoryChannelLayer):
    async def group_send(self, group, message):
        await asyncio.sleep(3600)


class BrokenLayer(InMemoryChannelLayer):
    async def group_send(self, group, message):
        raise ConnectionError("no Redis")


def use_layer(settings, cls):
    backend = f"{cls.__module__}.{cls.__qualname__}"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}


@pytest.mark.parametrize("cls", [HangingLayer, BrokenLayer])
def test_publish_does_not_block_when_layer_fails_or_hangs(settings, cls, monkeypatch):
    use_layer(settings, cls)
    monkeypatch.setattr(broker_module, "SEND_TIMEOUT", 0.3)
    broker = Broker()
    began = time.monotonic()
    for n in range(30_000):
        broker.publish(make_broadcast(n))
    assert time.monotonic() - began < 5
    assert broker.dropped > 0  # memory is bounded: the oldest events were dropped
    broker._outbox.clear()  # so that its thread does not send to the layers of other tests
    assert broker.flush(10)


def test_publish_without_layer(settings):
    settings.CHANNEL_LAYERS = {}
    broker = Broker()
    broker.publish(make_broadcast(1))
    assert broker.flush(2)


async def test_send_returns_whether_layer_accepted_the_event(settings, monkeypatch):
    assert await Broker().send(make_broadcast(1))
    use_layer(settings, BrokenLayer)
    assert not await Broker().send(make_broadcast(1))
    use_layer(settings, HangingLayer)
    monkeypatch.setattr(broker_module, "SEND_TIMEOUT", 0.3)
    broker = Broker()
    assert not await broker.send(make_broadcast(1), timeout=0.05)
    assert await asyncio.to_thread(broker.flush, 10)


async def test_events_of_many_threads_arrive_complete_and_in_order_per_thread():
    broker = Broker()
    broker.attach(asyncio.get_running_loop())
    inbox = await LayerChannel.open()
    await inbox.join(room_group("default", "r"))

    def publish_many(k):
        for n in range(300):
            broker.publish(make_broadcast([k, n]))

    threads = [threading.Thread(target=publish_many, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    received = []
    async with asyncio.timeout(10):
        while len(received) < 1200:
            received += [decode(payload).message for payload in await inbox.receive()]
    for k in range(4):
        assert [n for j, n in received if j == k] == list(range(300))
    broker.detach(asyncio.get_running_loop())


async def test_burst_is_sent_as_one_layer_message():
    broker = Broker()
    broker.attach(asyncio.get_running_loop())
    inbox = await LayerChannel.open()
    await inbox.join(room_group("default", "r"))
    for n in range(1000):
        broker.publish(make_broadcast(n))
    first = await inbox.receive()
    assert [decode(p).message for p in first] == list(range(1000))


def test_process_without_hub_sends_events_before_it_exits(redis, settings):
    settings.CHANNEL_LAYERS = redis.layer("core")
    code = (
        "import django; django.setup()\n"
        "from django_cocobase_realtime.pubsub.broker import broker\n"
        "from django_cocobase_realtime.events import Broadcast\n"
        "broker.publish(Broadcast(room='r', project='default', message='last words', at='now'))\n"
    )
    import json

    async def listen():
        inbox = await LayerChannel.open()
        await inbox.join(room_group("default", "r"))
        env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "REALTIME_TEST_LAYERS": json.dumps(redis.layer("core")),
        }
        command = [sys.executable, "-c", code]
        await asyncio.to_thread(subprocess.run, command, env=env, cwd=ROOT, check=True)
        async with asyncio.timeout(5):
            (payload,) = await inbox.receive()
        await get_channel_layer().close_pools()
        return decode(payload).message

    assert asyncio.run(listen()) == "last words"


def test_forked_process_can_publish():
    broker.publish(make_broadcast(1))
    assert broker.flush(2)
    child = os.fork()
    if child == 0:
        broker.publish(make_broadcast(2))
        os._exit(0 if broker.flush(5) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_decode_reverses_encode():
    events = [
        Change("1", "posts", "updated", "7", "t", "now", {"a": 1}, {"a": 2}, ("a",)),
        make_broadcast({"deep": [None, "ü"]}),
        DisconnectRequested(code=4500, user="1"),
    ]
    for event in events:
        assert decode(encode(event)) == event


def test_group_names_are_valid_and_distinct():
    layer = InMemoryChannelLayer()
    names = {collection_group("posts"), collection_group("ü" * 100), room_group("p", "r" * 500)}
    names |= {room_group("a", "bc"), room_group("ab", "c")}
    assert len(names) == 5
    for name in names:
        layer.require_valid_group_name(name)
