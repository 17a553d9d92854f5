"""One connection's way out: order, bounds, and never a wait for anybody else."""

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
def make():
    def make(max_bytes=1000, max_messages=100):
        socket, overflows = Socket(), []
        writer = Writer(
            socket.send,
            max_bytes=max_bytes,
            max_messages=max_messages,
            on_overflow=lambda: overflows.append(1),
        )
        return socket, writer, overflows

    return make


async def test_order_is_kept_whenever_the_socket_waits(make):
    socket, writer, overflows = make()
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


async def test_nothing_is_queued_while_the_socket_takes_it(make):
    socket, writer, _ = make()
    writer.push("a")
    writer.push("b")
    assert socket.sent == ["a", "b"]  # no task, no turn of the loop
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("bounds", [{"max_bytes": 10}, {"max_messages": 2}])
async def test_a_stalled_client_overflows_once_and_holds_nothing(make, bounds):
    socket, writer, overflows = make(**bounds)
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
async def test_a_socket_that_is_gone_is_silence(make, stalled):
    socket, writer, _ = make()
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


def test_credit():
    credit = AckWindow(2)
    assert [credit.record_sent(cursor) for cursor in "abc"] == [False, False, True]
    credit.ack("b")
    assert [credit.record_sent(cursor) for cursor in "de"] == [False, True]
    credit.ack("unknown")
    assert credit.record_sent("f")
    credit.ack("f")
    assert not credit.record_sent("g")
