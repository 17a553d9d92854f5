"""Which frames a connection receives before it is closed."""

import asyncio

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.consumers import consumer
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.log.retention import rotate_epoch
from django_cocobase_realtime.wire.codes import CloseCode
from tests.app.models import Post
from tests.support.sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)


async def test_no_event_is_sent_after_position_is_lost(api_key):
    """Otherwise the client would resume from that event's cursor and miss the gap."""
    async with open_socket(token=api_key) as socket:
        await socket.send_frame(type="subscribe", collection="posts")
        await socket.wait_for_frame("subscribed")
        socket.reading.clear()  # further frames wait in the server
        await Post.objects.acreate(title="in time")
        await socket.wait_for_frame("event")
        tailer = Hub.current().topics.topics["posts"].tailer
        epoch = tailer.epoch
        await sync_to_async(rotate_epoch)("default")
        await socket.wait_until(lambda: tailer.epoch != epoch)
        seq = tailer.seq
        await Post.objects.acreate(title="after the gap")
        await socket.wait_until(lambda: tailer.seq > seq)
        socket.reading.set()
        await socket.wait_until(lambda: socket.close_code is not None)
        kinds = [frame["type"] for frame in socket.frames]
        assert kinds == ["authenticated", "subscribed", "event", "closing"]
        assert socket.close_code == CloseCode.POSITION_LOST


async def test_no_frame_is_sent_after_closing_frame(api_key):
    async with open_socket(token=api_key) as socket:
        await socket.send_frame(type="subscribe", collection="posts")
        await socket.send_frame(type="join", room="r")
        await socket.wait_for_frame("joined")
        hub = Hub.current()
        (connection,) = hub.connections.values()
        connection.close(CloseCode.BAD_CREDENTIAL)
        connection.writer.push_event('{"type": "event"}')
        connection.writer.push('{"type": "presence"}')
        await socket.wait_until(lambda: socket.close_code is not None)
        kinds = [frame["type"] for frame in socket.frames]
        assert kinds == ["authenticated", "subscribed", "joined", "closing"]


@pytest.mark.parametrize("error", [ValueError("The message is too large."), OSError("closed")])
async def test_failed_send_closes_connection_with_code(api_key, monkeypatch, error):
    """Otherwise the client would wait on an open socket on which nothing is sent."""
    monkeypatch.setattr(consumer, "FAILED_SEND_GRACE", 0.05)
    async with open_socket(token=api_key) as socket:
        await socket.send_frame(type="subscribe", collection="posts")
        await socket.wait_for_frame("subscribed")
        hub = Hub.current()
        socket.fails_at = lambda frame: (frame["type"] == "event" and error) or None
        await Post.objects.acreate(title="refused by the server")
        await socket.wait_until(lambda: socket.close_code is not None)
        assert socket.close_code == CloseCode.INTERNAL_ERROR
        assert not hub.connections


async def test_failed_send_does_not_close_socket_that_the_client_has_closed(api_key, monkeypatch):
    monkeypatch.setattr(consumer, "FAILED_SEND_GRACE", 0.2)
    async with open_socket(token=api_key) as socket:
        await socket.send_frame(type="subscribe", collection="posts")
        await socket.wait_for_frame("subscribed")
        socket.fails_at = lambda frame: OSError("closed")
        await Post.objects.acreate(title="too late")
        await socket.incoming.put({"type": "websocket.disconnect", "code": 1001})
        await asyncio.sleep(0.4)
        assert socket.close_code is None
