"""What a connection is told at its end: what it missed comes before what happened later."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.fanout.hub import Hub
from django_cocobase_realtime.log.trim import rotate_epoch
from django_cocobase_realtime.routing import realtime_application
from django_cocobase_realtime.wire.codes import CloseCode
from tests.app.models import Post

pytestmark = pytest.mark.django_db(transaction=True)


class Socket:
    """An ASGI socket whose client reads only while ``reading`` is set."""

    def __init__(self):
        self.reading = asyncio.Event()
        self.reading.set()
        self.sent = []
        self.incoming = asyncio.Queue()

    async def send(self, message):
        self.sent.append(message)
        await self.reading.wait()

    async def say(self, **frame):
        await self.incoming.put({"type": "websocket.receive", "text": json.dumps(frame)})

    @property
    def frames(self):
        return [json.loads(m["text"]) for m in self.sent if m["type"] == "websocket.send"]

    @property
    def code(self):
        return next((m["code"] for m in self.sent if m["type"] == "websocket.close"), None)

    async def until(self, condition, seconds=5):
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    async def told(self, type):
        await self.until(lambda: any(frame["type"] == type for frame in self.frames))


@asynccontextmanager
async def connect(key):
    socket = Socket()
    scope = {"type": "websocket", "path": "/realtime", "headers": [], "subprotocols": []}
    scope |= {"query_string": b"", "client": ("127.0.0.1", 1)}
    task = asyncio.create_task(realtime_application()(scope, socket.incoming.get, socket.send))
    await socket.incoming.put({"type": "websocket.connect"})
    await socket.say(type="auth", token=key)
    await socket.told("authenticated")
    try:
        yield socket
    finally:
        socket.reading.set()
        await socket.incoming.put({"type": "websocket.disconnect", "code": 1005})
        await asyncio.wait_for(task, 5)


async def test_after_a_lost_position_no_later_event_hides_the_gap(api_key):
    """Its cursor would be the one to come back with, and the gap be forgotten."""
    async with connect(api_key) as socket:
        await socket.say(type="subscribe", collection="posts")
        await socket.told("subscribed")
        socket.reading.clear()  # what follows waits in the server
        await Post.objects.acreate(title="in time")
        await socket.told("event")
        feed = Hub.current().feeds["posts"]
        epoch = feed.epoch
        await sync_to_async(rotate_epoch)("default")
        await socket.until(lambda: feed.epoch != epoch)
        seq = feed.seq
        await Post.objects.acreate(title="after the gap")
        await socket.until(lambda: feed.seq > seq)
        socket.reading.set()
        await socket.until(lambda: socket.code is not None)
        kinds = [frame["type"] for frame in socket.frames]
        assert kinds == ["authenticated", "subscribed", "event", "closing"]
        assert socket.code == CloseCode.POSITION_LOST


async def test_who_is_sent_away_hears_nothing_more(api_key):
    async with connect(api_key) as socket:
        await socket.say(type="subscribe", collection="posts")
        await socket.say(type="join", room="r")
        await socket.told("joined")
        hub = Hub.current()
        (connection,) = hub.connections.values()
        connection.close(CloseCode.BAD_CREDENTIAL)
        connection.writer.push_event('{"type": "event"}')
        connection.writer.push('{"type": "presence"}')
        await socket.until(lambda: socket.code is not None)
        kinds = [frame["type"] for frame in socket.frames]
        assert kinds == ["authenticated", "subscribed", "joined", "closing"]
