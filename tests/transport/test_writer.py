"""The writer of one connection: order, bounds, and no waiting for slow clients."""

import asyncio
import json
import tracemalloc

import pytest

from django_cocobase_realtime.transport.ack_window import AckWindow
from django_cocobase_realtime.transport.fan_out import FrameBatcher, fan_out
from django_cocobase_realtime.transport.waiting_frames import FrameBuffer
from django_cocobase_realtime.transport.writer import Writer
from django_cocobase_realtime.wire import frames


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
    def make_writer(max_bytes=10_000, max_messages=100):
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
    assert writer.waiting_bytes == 0


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
    assert writer.waiting_bytes == 0
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


@pytest.fixture
def make_batching_writer(make_writer):
    def make_batching_writer(**bounds):
        socket, writer, overflows = make_writer(**bounds)
        writer.enable_batching(FrameBatcher(asyncio.get_running_loop()))
        return socket, writer, overflows

    return make_batching_writer


@pytest.mark.parametrize("character", ["x", "é", "字", "😀"])
async def test_limit_is_in_bytes_of_memory(make_writer, character):
    socket, writer, overflows = make_writer(max_bytes=100_000)
    socket.open.clear()
    tracemalloc.start()
    writer.push("sent")
    text = character * 9_999
    while not overflows:
        before = writer.waiting_bytes
        writer.push(text + "!")  # not the same object
    assert 80_000 < before <= 100_000
    assert tracemalloc.get_traced_memory()[1] < 250_000
    tracemalloc.stop()
    assert writer.waiting_bytes == 0
    await writer.stop()


async def test_one_character_that_is_not_ascii_does_not_multiply_memory(make_writer):
    """In a Python text, it would make each of the others four bytes long."""
    socket, writer, overflows = make_writer(max_bytes=100_000)
    socket.open.clear()
    writer.push("sent")
    for number in range(9):
        writer.push(f"{number}😀" + "x" * 10_000)
    assert not overflows
    assert writer.waiting_bytes < 100_000
    socket.open.set()
    assert await writer.flush(1)
    assert socket.sent[1:] == [f"{number}😀" + "x" * 10_000 for number in range(9)]


async def test_batch_that_is_not_sent_yet_is_counted(make_batching_writer):
    _, writer, _ = make_batching_writer(max_bytes=10**6)
    for _ in range(3):
        writer.push_event("x" * 10_000)
    assert 30_000 < writer.waiting_bytes < 31_000
    await asyncio.sleep(0)
    assert writer.waiting_bytes == 0


@pytest.mark.parametrize("stalled", [False, True])
@pytest.mark.parametrize("character", ["x", "字", "😀"])
@pytest.mark.parametrize("length", [500, 3_000, 60_000])
async def test_batch_is_smaller_than_largest_frame(
    make_batching_writer, stalled, character, length
):
    socket, writer, overflows = make_batching_writer(max_bytes=10**8, max_messages=1000)
    if stalled:
        socket.open.clear()
        writer.push('"first"')
    texts = ['"' + str(number) + character * length + '"' for number in range(150)]
    for text in texts:
        writer.push_event(text)
    socket.open.set()
    await asyncio.sleep(0)
    assert await writer.flush(5)
    assert not overflows
    received = []
    for text in socket.sent[stalled:]:
        assert len(text.encode()) <= frames.MAX_FRAME_BYTES
        frame = json.loads(text)
        received += frame["events"] if isinstance(frame, dict) else [frame]
    assert received == [json.loads(text) for text in texts]
    assert len(socket.sent) < 150 or length == 60_000


async def test_buffered_frames_are_counted_with_the_queue(make_writer):
    socket, writer, overflows = make_writer(max_bytes=10_000, max_messages=10)
    buffer = FrameBuffer(writer)
    for number in range(3):
        buffer.append(f"{number}" + "x" * 2_000, seq=number)
    assert len(buffer) == 3
    assert 6_000 < writer.waiting_bytes < 7_000
    buffer.flush(after=0)
    assert [text[0] for text in socket.sent] == ["1", "2"]
    assert writer.waiting_bytes == len(buffer) == 0
    buffer.append("x" * 9_000)
    socket.open.clear()
    writer.push("in the socket")
    writer.push("x" * 900)
    assert not overflows
    writer.push("x" * 900)
    assert overflows == [1]
    buffer.clear()
    assert writer.waiting_bytes == 0
    await writer.stop()


async def test_number_of_buffered_frames_is_limited(make_writer):
    _, writer, overflows = make_writer(max_messages=10)
    buffer = FrameBuffer(writer)
    for _ in range(11):
        assert not overflows
        buffer.append("x")
    assert overflows == [1]


async def test_page_turn_is_given_in_order_and_after_cancellation(make_writer):
    _, writer, _ = make_writer()
    order = []

    async def take(name):
        async with writer.page_turn:
            with writer.holding(1000):
                order.append((name, writer.waiting_bytes))
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(take(name)) for name in "abcd"]
    await asyncio.sleep(0)
    tasks[1].cancel()  # waits
    tasks[0].cancel()  # has the turn
    await asyncio.wait(tasks)
    assert order == [("a", 1000), ("c", 1000), ("d", 1000)]
    assert writer.waiting_bytes == 0


class AwaitableOnly:
    """An object that can be awaited and is not a coroutine, like those of granian."""

    def __init__(self, coroutine):
        self.coroutine = coroutine

    def __await__(self):
        return self.coroutine.__await__()


AWAITABLES = {
    "coroutine": lambda coroutine: coroutine,
    "awaitable": AwaitableOnly,
    "future": asyncio.ensure_future,
}


@pytest.mark.parametrize("make_awaitable", AWAITABLES.values(), ids=AWAITABLES)
@pytest.mark.parametrize("batching", [False, True])
async def test_send_may_return_any_awaitable(make_batching_writer, make_awaitable, batching):
    socket, writer, overflows = make_batching_writer(max_bytes=10**6)
    if not batching:
        writer._batcher, writer.can_send_inline = None, True
    send = writer.send
    writer.send = lambda message: make_awaitable(send(message))
    for number in range(0, 60, 3):
        writer.push(f"{number}")
        fan_out([writer], f"{number + 1}", None)
        writer.push_event(f"{number + 2}")
        if number % 4 == 0:
            socket.open.clear()
            asyncio.get_running_loop().call_later(0.01, socket.open.set)
            await asyncio.sleep(0.005)
    assert await writer.flush(2)
    received = [json.loads(text) for text in socket.sent]
    received = [n for f in received for n in (f["events"] if isinstance(f, dict) else [f])]
    assert received == list(range(60))
    assert not overflows
    socket.error = ValueError("refused")
    writer.push("last")
    await writer.flush(1)
    assert writer.closed


@pytest.mark.parametrize("stalled", [False, True])
@pytest.mark.parametrize("push", ["push", "push_event", "fan_out"])
async def test_failed_send_is_reported_once(stalled, push):
    socket, failures = Socket(), []
    writer = Writer(
        socket.send, max_bytes=1000, max_messages=9, on_overflow=print, on_failure=failures.append
    )
    socket.error = ValueError("The message is too large.")
    if stalled:
        socket.open.clear()
    for text in "ab":
        if push == "fan_out":
            fan_out([writer], text, None)
        else:
            getattr(writer, push)(text)
    socket.open.set()
    await asyncio.sleep(0.01)
    assert failures == [socket.error]
    assert writer.closed


async def test_exception_instead_of_awaitable_is_reported():
    failures = []

    def refuse(message):
        raise ValueError("refused")

    writer = Writer(
        refuse, max_bytes=1000, max_messages=9, on_overflow=print, on_failure=failures.append
    )
    writer.push("a")
    assert len(failures) == 1
