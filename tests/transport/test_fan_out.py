"""Fan-out of one frame to many connections: complete, in order, and not delayed by slow ones."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_cocobase_realtime.transport.fan_out import FrameBatcher, fan_out
from django_cocobase_realtime.transport.writer import Writer


class Peer:
    """A connection whose server accepts frames at once, later, or never."""

    def __init__(self, kind, batches=None):
        self.kind = kind
        self.received = []
        self.overflows = 0
        self.writer = Writer(self.send, max_bytes=10**6, max_messages=5, on_overflow=self.overflow)
        if "batch" in kind:
            self.writer.enable_batching(batches)
        if "ack" in kind:
            self.writer.ack("0", 3)

    def overflow(self):
        self.overflows += 1

    async def send(self, message):
        if "gone" in self.kind:
            raise ConnectionError
        if "blocked" in self.kind:
            await asyncio.Event().wait()
        if "delayed" in self.kind:
            await asyncio.sleep(0)
        if "slow" in self.kind:
            await asyncio.sleep(0.001)
            await asyncio.sleep(0)
        frame = json.loads(message["text"])
        self.received += frame["events"] if isinstance(frame, dict) else [frame]


kinds = st.sampled_from(
    ["immediate", "delayed", "slow", "gone", "blocked", "batch", "batch delayed", "ack delayed"]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(kinds, max_size=12), st.integers(1, 4))
def test_every_connection_receives_each_frame_once_in_order(kinds, events):
    async def check():
        batches = FrameBatcher(asyncio.get_running_loop())
        peers = [Peer(kind, batches) for kind in kinds]
        writers = [peer.writer for peer in peers]
        for number in range(events):
            fan_out(writers, str(number), f"c{number}")
        for peer in peers:
            if peer.kind == "immediate":  # without a turn of the loop
                assert peer.received == list(range(events))
        await asyncio.sleep(0)  # batches are sent
        async with asyncio.timeout(5):
            while any(peer.writer._task for peer in peers if "blocked" not in peer.kind):
                await asyncio.sleep(0.001)
        for peer in peers:
            if "gone" in peer.kind:
                assert peer.writer.closed
            elif "blocked" in peer.kind:
                assert peer.received == []
            elif "ack" in peer.kind and events > 3:
                assert peer.overflows == 1
            else:
                assert peer.received == list(range(events))
                assert peer.writer.can_send_inline is (
                    peer.kind in ("immediate", "delayed", "slow")
                )
        await asyncio.gather(*(peer.writer.stop() for peer in peers))

    asyncio.run(check())


async def test_blocked_connection_overflows_without_delaying_others():
    peers = [Peer("blocked" if n == 3 else "immediate") for n in range(10)]
    for number in range(20):
        fan_out([peer.writer for peer in peers], str(number), None)
    assert [peer.overflows for peer in peers] == [int(n == 3) for n in range(10)]
    assert all(len(peer.received) == 20 for peer in peers if peer.kind == "immediate")
    await asyncio.gather(*(peer.writer.stop() for peer in peers))


@pytest.fixture
async def batcher():
    return Peer("batch", FrameBatcher(asyncio.get_running_loop()))


async def test_events_of_one_turn_are_batched_and_replies_keep_their_order(batcher):
    frames = []
    batcher.send = None

    async def send(message):
        frames.append(json.loads(message["text"]))

    batcher.writer.send = send
    batcher.writer.push_event("1")
    batcher.writer.push_event("2")
    batcher.writer.push('{"type":"pong"}')
    batcher.writer.push_event("3")
    assert frames == [{"type": "events", "events": [1, 2]}, {"type": "pong"}]
    await asyncio.sleep(0)
    assert frames[2:] == [3]  # a single event is not batched
    for number in range(250):
        batcher.writer.push_event(str(number))
    await asyncio.sleep(0)
    assert [len(f["events"]) for f in frames[3:]] == [100, 100, 50]


async def test_queued_events_of_slow_client_are_batched(batcher):
    frames, may_send = [], asyncio.Event()

    async def send(message):
        await may_send.wait()
        frames.append(json.loads(message["text"]))

    batcher.writer.send = send
    batcher.writer.push("0")
    for text in ("1", "2"):
        batcher.writer.push_event(text)
    batcher.writer.push('"reply"')
    batcher.writer.push_event("3")
    may_send.set()
    assert await batcher.writer.flush(1)
    assert frames == [0, {"type": "events", "events": [1, 2]}, "reply", 3]
