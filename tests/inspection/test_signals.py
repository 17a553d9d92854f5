"""Django signals about clients: which are sent, in which order, and that they delay nothing."""

import asyncio
import threading
from contextlib import contextmanager

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from django_cocobase_realtime import disconnect, permissions_changed, signals
from django_cocobase_realtime.hub import client_signals
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.models import ApiKey
from tests.app.models import Message

pytestmark = pytest.mark.django_db(transaction=True)
NAMES = ["client_connected", "client_disconnected", "subscribed", "room_joined", "room_left"]


class Received:
    """A receiver of all signals, which records them."""

    def __init__(self):
        self.calls = []
        self.threads = set()

    def connect(self, name):
        def receive(signal, sender, connection, identity, **values):
            assert sender is Identity
            self.threads.add(threading.current_thread().name)
            self.calls.append((name, connection, identity, values))

        return receive

    @property
    def names(self):
        return [name for name, *_ in self.calls]

    async def wait(self, count):
        async with asyncio.timeout(10):
            while len(self.calls) < count:
                await asyncio.sleep(0.01)


@contextmanager
def connected(receivers):
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver, weak=False)
    try:
        yield
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)


@pytest.fixture
def received():
    recorder = Received()
    with connected({name: recorder.connect(name) for name in NAMES}):
        yield recorder


async def test_signals_are_sent_in_order_with_their_values(realtime, api_key, received):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", subscription="drafts", filters={"status": "draft"})
        await client.join("lobby")
        await client.join("lobby", state={"typing": True})
        await client.join("hall")
        await client.send({"type": "leave", "room": "lobby"})
        await client.receive("left")
    await received.wait(7)
    values = [values for *_, values in received.calls]
    assert received.names == [
        "client_connected",
        "subscribed",
        "room_joined",
        "room_joined",
        "room_left",
        "room_left",
        "client_disconnected",
    ]
    assert values[0] == {"address": values[0]["address"]}
    assert values[1] == {
        "subscription": "drafts",
        "collection": "posts",
        "filters": {"status": "draft"},
    }
    assert [v["room"] for v in values[2:6]] == ["lobby", "hall", "lobby", "hall"]
    assert values[6] == {"code": 1000}
    assert len({connection for _, connection, *_ in received.calls}) == 1
    assert {identity.name for *_, identity, _ in received.calls} == {"test"}
    assert threading.current_thread().name not in received.threads


async def test_close_code_of_the_server(realtime, api_key, received):
    async with realtime(token=api_key) as client:
        await client.join("lobby")
        key = await ApiKey.objects.aget()
        await sync_to_async(disconnect)(key=key.prefix)
        assert await client.closed() == 4500
        await received.wait(4)
    await asyncio.sleep(0.1)
    assert received.names == ["client_connected", "room_joined", "room_left", "client_disconnected"]
    assert received.calls[-1][-1] == {"code": 4500}


async def test_refused_clients_and_requests_send_nothing(realtime, settings, received):
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": "crk_wrong"})
        await client.closed()
    await asyncio.sleep(0.1)
    assert received.calls == []


class Failing:
    fails = False

    def can_join(self, identity, room):
        if self.fails:
            raise RuntimeError("code of the project")
        return True


async def test_room_whose_permission_raises_is_left(realtime, api_key, settings, received):
    settings.COCOBASE_REALTIME = {"ROOMS": {"hall": {"permission": f"{__name__}.Failing"}}}
    async with realtime(token=api_key) as client:
        await client.join("hall")
        Failing.fails = True
        try:
            await sync_to_async(permissions_changed)()
            await client.receive("error")
        finally:
            Failing.fails = False
        await received.wait(3)
        assert received.names == ["client_connected", "room_joined", "room_left"]


async def test_receivers_use_the_orm_and_exceptions_are_logged(realtime, api_key, received, caplog):
    def write(signal, sender, connection, **values):
        User.objects.create(username=connection)

    def fail(signal, sender, **values):
        raise RuntimeError("in a receiver")

    after = []
    with (
        connected({"client_connected": fail, "room_joined": write}),
        connected({"client_connected": lambda **values: after.append(values)}),
    ):
        async with realtime(token=api_key) as client:
            await client.join("lobby")
            await received.wait(2)
            async with asyncio.timeout(5):
                while not await User.objects.acount():
                    await asyncio.sleep(0.01)
            (user,) = [user async for user in User.objects.all()]
            assert user.username == received.calls[0][1]
            assert len(after) == 1  # another receiver of the same signal
    assert "in a receiver" in caplog.text
    await received.wait(4)


async def test_slow_receiver_delays_no_events(realtime, api_key, received):
    release = threading.Event()
    with connected({"subscribed": lambda **values: release.wait(10)}):
        async with realtime(token=api_key) as client:
            await client.subscribe("messages")
            await Message.objects.acreate(text="x")
            assert (await client.receive("event"))["event"] == "created"
            await client.join("lobby")
            await asyncio.sleep(0.1)
            assert "room_joined" not in received.names  # in order per connection
            release.set()
            await received.wait(3)
            assert received.names == ["client_connected", "subscribed", "room_joined"]


async def test_waiting_signals_are_bounded(realtime, api_key, received, monkeypatch, caplog):
    monkeypatch.setattr(client_signals, "MAX_WAITING", 3)
    release = threading.Event()
    with connected({"client_connected": lambda **values: release.wait(10)}):
        async with realtime(token=api_key) as client:
            for number in range(6):
                await client.subscribe("posts", subscription=str(number))
            release.set()
            await received.wait(4)
    await received.wait(5)
    assert received.names.count("subscribed") == 3
    assert "were dropped" in caplog.text


async def test_nothing_is_done_without_receivers(realtime, api_key, monkeypatch):
    tasks = []
    monkeypatch.setattr(client_signals, "spawn_task", tasks.append)
    monkeypatch.setattr(client_signals, "requested_filters", None)
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await client.join("lobby")
    assert tasks == []
