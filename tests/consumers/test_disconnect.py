"""Requests of a client that disconnects are cancelled, and what it sends meanwhile is bounded."""

import asyncio
import json
import threading
from functools import partial
from types import SimpleNamespace

import pytest

from django_cocobase_realtime.consumers import message_reader
from django_cocobase_realtime.consumers.message_reader import MAX_MESSAGES, MessageReader
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.models import PresenceConnection
from django_cocobase_realtime.permissions import Permission
from django_cocobase_realtime.routing import realtime_application
from django_cocobase_realtime.wire.codes import CloseCode
from tests.support.failing_code import AUTHENTICATOR, TestAuthenticator
from tests.support.sockets import AsgiSocket

pytestmark = pytest.mark.django_db(transaction=True)


class Blocked(Permission):
    entered = threading.Event()
    release = threading.Event()

    def can_subscribe(self, identity, filters):
        self.entered.set()
        self.release.wait(10)
        return True

    def can_join(self, identity, room):
        return self.can_subscribe(identity, {})


@pytest.fixture
def configure(settings):
    path = f"{__name__}.Blocked"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": path},
            "messages": "app.Message",
        },
        "ROOMS": {"hall": {"permission": path}, "*": {}},
        "AUTHENTICATORS": [AUTHENTICATOR],
        "LIMITS": {"messages_rate": (1000, 1000)},
    }
    for event in (Blocked.entered, Blocked.release, TestAuthenticator.release):
        event.clear()
    yield
    Blocked.release.set()
    TestAuthenticator.release.set()


class Socket(AsgiSocket):
    """A connection whose application runs in ``task``."""

    async def __aenter__(self):
        scope = {"type": "websocket", "path": "/realtime", "subprotocols": [], "headers": []}
        scope |= {"query_string": b"", "client": ("127.0.0.1", 1)}
        application = realtime_application()(scope, self.incoming.get, self.send)
        self.task = asyncio.create_task(application)
        await self.incoming.put({"type": "websocket.connect"})
        return self

    async def __aexit__(self, *error):
        if not self.task.done():
            await self.disconnect()
        await asyncio.wait_for(self.task, 5)

    async def authenticate(self):
        await self.send_frame(type="auth", token="ada")
        await self.wait_for_frame("authenticated")

    async def disconnect(self):
        await self.incoming.put({"type": "websocket.disconnect", "code": 1001})


REQUESTS = [
    {"type": "subscribe", "collection": "posts"},
    {"type": "join", "room": "hall"},
]


@pytest.mark.parametrize("request_frame", REQUESTS, ids=lambda frame: frame["type"])
async def test_disconnect_cancels_the_request_that_waits(configure, request_frame):
    async with Socket() as other, Socket() as socket:
        await other.authenticate()
        await socket.authenticate()
        await socket.send_frame(**request_frame)
        await socket.wait_until(Blocked.entered.is_set)
        hub = Hub.current()
        assert len(hub.connections) == 2
        await socket.disconnect()
        await asyncio.wait_for(socket.task, 2)  # the permission still waits
        assert not Blocked.release.is_set()
        assert len(hub.connections) == 1
        assert not hub.topics.topics
        assert not hub.topics._reference_counts
        assert not hub.rooms.rooms


async def test_disconnect_during_authentication_leaves_nothing(configure):
    async with Socket() as socket:
        await socket.send_frame(type="auth", token="blocked")
        await asyncio.sleep(0.3)
        await socket.disconnect()
        await asyncio.wait_for(socket.task, 2)
        assert not TestAuthenticator.release.is_set()
        assert not Hub.current().connections
    from django_cocobase_realtime.utils.limits import connection_counters

    assert (connection_counters.total, connection_counters._counts) == (0, {})


@pytest.mark.parametrize("step", ["acquire", "wait_caught_up", "enter"])
async def test_cancelled_request_leaves_no_references(configure, monkeypatch, step):
    """At each place where a request waits after its permission was granted."""
    from django_cocobase_realtime.delivery.tailer import LogTailer
    from django_cocobase_realtime.pubsub.groups import GroupMemberships
    from django_cocobase_realtime.rooms.room_manager import RoomManager

    entered = asyncio.Event()
    cls = {"acquire": GroupMemberships, "wait_caught_up": LogTailer, "enter": RoomManager}[step]
    name = "_enter" if step == "enter" else step
    original = getattr(cls, name)

    async def wait(self, *args):
        if step == "wait_caught_up":
            entered.set()
            await asyncio.sleep(10)
        result = await original(self, *args)
        entered.set()
        await asyncio.sleep(10)
        return result

    async with Socket() as other, Socket() as socket:
        await other.authenticate()
        await socket.authenticate()
        hub = Hub.current()
        groups = hub.groups._reference_counts.copy()
        with monkeypatch.context() as patched:
            patched.setattr(cls, name, wait)
            if step == "enter":
                await socket.send_frame(type="join", room="lobby")
            else:
                await socket.send_frame(type="subscribe", collection="messages")
            await asyncio.wait_for(entered.wait(), 5)
            await socket.disconnect()
            await asyncio.wait_for(socket.task, 2)
        assert not hub.topics.topics
        assert not hub.topics._reference_counts
        assert not hub.rooms.rooms
        assert +hub.groups._reference_counts == groups
        async with asyncio.timeout(5):
            while await PresenceConnection.objects.acount():
                await asyncio.sleep(0.05)


async def test_requests_sent_meanwhile_are_bounded_and_answered_in_order(configure):
    async with Socket() as socket:
        await socket.authenticate()
        await socket.send_frame(type="subscribe", collection="posts", id=0)
        for number in range(1, 251):
            await socket.send_frame(type="ping", id=number)
        await socket.wait_until(Blocked.entered.is_set)
        await asyncio.sleep(0.2)
        assert socket.incoming.qsize() >= 250 - MAX_MESSAGES
        assert socket.frames[1:] == []
        Blocked.release.set()
        await socket.wait_until(lambda: len(socket.frames) == 252)
        assert [frame["id"] for frame in socket.frames[1:]] == list(range(251))


async def test_requests_before_the_disconnect_are_handled_until_they_wait(configure):
    async with Socket() as other, Socket() as socket:
        for each_socket in (other, socket):
            await each_socket.authenticate()
            await each_socket.send_frame(type="join", room="lobby")
            await each_socket.wait_for_frame("joined")
        await socket.send_frame(type="subscribe", collection="posts")
        await socket.wait_until(Blocked.entered.is_set)
        await socket.send_frame(type="broadcast", room="lobby", message="bye")
        for name in "abc":
            await socket.send_frame(type="subscribe", collection="posts", subscription=name)
        await socket.disconnect()
        await asyncio.wait_for(socket.task, 2)
        assert not Blocked.release.is_set()
        await other.wait_for_frame("event")
        assert other.frames_of_type("event")[0]["message"] == "bye"


async def test_disconnect_behind_a_full_queue_is_seen_after_the_request(configure):
    async with Socket() as socket:
        await socket.authenticate()
        await socket.send_frame(type="subscribe", collection="posts")
        for number in range(2 * MAX_MESSAGES):
            await socket.send_frame(type="ping", id=number)
        await socket.disconnect()
        await asyncio.sleep(0.3)
        assert not socket.task.done()
        Blocked.release.set()
        await asyncio.wait_for(socket.task, 5)
        assert len(socket.frames_of_type("pong")) == 2 * MAX_MESSAGES


async def test_server_that_closes_cancels_the_request(configure):
    async with Socket() as socket:
        await socket.authenticate()
        await socket.send_frame(type="subscribe", collection="posts")
        await socket.wait_until(Blocked.entered.is_set)
        hub = Hub.current()
        (connection,) = hub.connections.values()
        connection.close(CloseCode.DRAINING)
        await socket.wait_until(lambda: socket.close_code == 4200)
        await socket.disconnect()
        await asyncio.wait_for(socket.task, 2)
        assert not Blocked.release.is_set()
        assert not hub.topics._reference_counts


async def test_request_that_closes_its_connection_is_not_cancelled(configure):
    reader = None
    done = []

    async def request():
        reader.cancel_request()
        await asyncio.sleep(0)
        done.append(True)

    reader = MessageReader(asyncio.Queue().get, None, lambda: None)
    await reader.handle(request())
    await asyncio.sleep(0)
    assert done


async def test_external_cancellation_still_ends_the_application(configure):
    async with Socket() as socket:
        await socket.authenticate()
        await socket.send_frame(type="subscribe", collection="posts")
        await socket.wait_until(Blocked.entered.is_set)
        socket.task.cancel()
        await asyncio.wait({socket.task}, timeout=5)
        assert socket.task.cancelled()
        socket.task = asyncio.create_task(asyncio.sleep(0))


# the reader alone


class Transport:
    """Daphne's transport."""

    def __init__(self):
        self.paused = 0
        self.resumed = 0

    def pauseProducing(self):  # noqa: N802 - Twisted's name
        self.paused += 1

    def resumeProducing(self):  # noqa: N802
        self.resumed += 1


def frame(text):
    return {"type": "websocket.receive", "text": text}


async def test_daphne_is_paused_until_all_queued_messages_are_handled():
    transport, queue = Transport(), asyncio.Queue()
    send = partial(lambda protocol, message: None, SimpleNamespace(transport=transport))
    reader = MessageReader(queue.get, send, lambda: None)
    for number in range(3 * MAX_MESSAGES):
        queue.put_nowait(frame(str(number)))
    received = []
    for _ in range(3 * MAX_MESSAGES):
        message = await reader.next()
        received.append(message["text"])
        await reader.handle(asyncio.sleep(0.001))
    assert received == [str(number) for number in range(3 * MAX_MESSAGES)]
    assert (transport.paused, transport.resumed) == (1, 0)
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0.01)
    assert (transport.paused, transport.resumed) == (1, 1)
    queue.put_nowait(frame("last"))
    assert (await waiting)["text"] == "last"


async def test_large_messages_are_bounded_by_bytes():
    queue = asyncio.Queue()
    reader = MessageReader(queue.get, None, lambda: None)
    for _ in range(5):
        queue.put_nowait(frame("x" * message_reader.MAX_BYTES))
    await reader.next()
    await reader.handle(asyncio.sleep(0.3))
    assert queue.qsize() == 3


@pytest.mark.parametrize("waits", [0, 10])
async def test_requests_that_do_not_wait_for_long_start_no_task(monkeypatch, waits):
    monkeypatch.setattr(message_reader, "READ_AHEAD_DELAY", 60)
    queue = asyncio.Queue()
    queue.put_nowait(frame("unread"))
    reader = MessageReader(queue.get, None, lambda: None)

    async def request():
        for _ in range(waits):
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == 1

    for _ in range(3):
        await reader.handle(request())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
    assert queue.qsize() == 1


class FutureOnlyQueue:
    """A server whose ``receive`` returns a future that loses its message if it is cancelled."""

    def __init__(self):
        self.waiting = None

    def receive(self):
        assert self.waiting is None or self.waiting.done()
        self.waiting = asyncio.get_running_loop().create_future()
        return self.waiting

    def put(self, message):
        self.waiting.set_result(message)


async def test_receive_that_cannot_be_cancelled_loses_no_message():
    server = FutureOnlyQueue()
    reader = MessageReader(server.receive, None, lambda: None)
    await reader.handle(asyncio.sleep(0.2))
    server.put(frame("1"))
    assert (await reader.next())["text"] == "1"
    await reader.handle(asyncio.sleep(0.2))
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0.01)
    server.put(frame("2"))
    assert (await waiting)["text"] == "2"


async def test_exception_of_the_server_is_raised_by_the_next_read():
    async def receive():
        await asyncio.sleep(0)
        raise ConnectionError("gone")

    reader = MessageReader(receive, None, lambda: None)
    await reader.handle(asyncio.sleep(0.2))
    with pytest.raises(ConnectionError):
        await reader.next()


async def test_message_that_arrives_when_the_request_ends_is_not_lost():
    queue = asyncio.Queue()
    reader = MessageReader(queue.get, None, lambda: None)
    for number in range(50):

        async def request(number=number):
            await asyncio.sleep(0.001)
            queue.put_nowait(frame(json.dumps(number)))

        await reader.handle(request())
        assert json.loads((await reader.next())["text"]) == number
