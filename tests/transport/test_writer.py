"""The writer of one connection: order, bounds, and no waiting for slow clients."""

import asyncio

import pytest

from django_cocobase_realtime.transport.writer import AckWindow, Writer


class Socket:
    """A server's ``send`` that waits while ``open`` is clear."""

    def __init__(self):
        self.open = asyncio.Event()
        self.open.set()
        self.sent = []
        self.error = None

    async def send(self, message):
        await self.open.wait()
        if self.error:
            raise self.error
        await asyncio.sleep(0) if len(self.sent) % 3 == 2 else None
        self.sent.append(message["text"])


@pytest.fixture
def make_writer():
    def make_writer(max_bytes=1000, max_messages=100):
        socket, overflows = Socket(), []
        writer = Writer(
            socket.send,
            max_bytes=max_bytes,
            max_messages=max_messages,
            on_overflow=lambda: overflows.append(1),
        )
        return socket, writer, overflows

    return make_writer


async def test_frames_keep_their_order_when_socket_blocks(make_writer):
    socket, writer, overflows = make_writer()
    for number in range(50):
        if number % 7 == 3:
            socket.open.clear()
        writer.push(str(number))
        if number % 7 == 6:
            socket.open.set()
            await asyncio.sleep(0)
    socket.open.set()
    assert await writer.flush(1)
    assert socket.sent == [str(n) for n in range(50)]
    assert overflows == []
    assert writer.queued_bytes == 0


async def test_frame_is_sent_inline_when_socket_does_not_block(make_writer):
    socket, writer, _ = make_writer()
    writer.push("a")
    writer.push("b")
    assert socket.sent == ["a", "b"]  # without a task or a turn of the loop
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("bounds", [{"max_bytes": 10}, {"max_messages": 2}])
async def test_stalled_client_overflows_once_and_queue_is_emptied(make_writer, bounds):
    socket, writer, overflows = make_writer(**bounds)
    socket.open.clear()
    for _ in range(20):
        writer.push("xxxxx")
    assert overflows == [1]
    assert writer.queued_bytes == 0
    assert not await writer.flush(0.01)
    await writer.stop()
    socket.open.set()
    await asyncio.sleep(0.01)
    assert socket.sent == []


@pytest.mark.parametrize("stalled", [False, True])
async def test_closed_socket_raises_no_error(make_writer, stalled):
    socket, writer, _ = make_writer()
    socket.error = ConnectionError("gone")
    if stalled:
        socket.open.clear()
    writer.push("a")
    writer.push("b")
    socket.open.set()
    await asyncio.sleep(0.01)
    assert writer.closed
    writer.push("c")
    assert socket.sent == []


def test_ack_window():
    window = AckWindow(2)
    assert [window.record_sent(cursor) for cursor in "abc"] == [False, False, True]
    window.ack("b")
    assert [window.record_sent(cursor) for cursor in "de"] == [False, True]
    window.ack("unknown")
    assert window.record_sent("f")
    window.ack("f")
    assert not window.record_sent("g")
