"""One frame to many: nobody waits for a slow one, nobody is left out or told twice."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_cocobase_realtime.transport.fan_out import FrameBatcher, fan_out
from django_cocobase_realtime.transport.writer import Writer


class Peer:
    """A connection whose server takes frames at once, late, or not at all."""

    def __init__(self, kind, batches=None):
        self.kind = kind
        self.got = []
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
        if "never" in self.kind:
            await asyncio.Event().wait()
        if "late" in self.kind:
            await asyncio.sleep(0)
        if "twice" in self.kind:
            await asyncio.sleep(0.001)
            await asyncio.sleep(0)
        frame = json.loads(message["text"])
        self.got += frame["events"] if isinstance(frame, dict) else [frame]


kinds = st.sampled_from(
    ["quick", "late", "twice", "gone", "never", "batch", "batch late", "ack late"]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(kinds, max_size=12), st.integers(1, 4))
def test_everybody_gets_everything_once_in_order(kinds, events):
    async def check():
        batches = FrameBatcher(asyncio.get_running_loop())
        peers = [Peer(kind, batches) for kind in kinds]
        writers = [peer.writer for peer in peers]
        for number in range(events):
            fan_out(writers, str(number), f"c{number}")
        for peer in peers:
            if peer.kind == "quick":  # not a turn of the loop later
                assert peer.got == list(range(events))
        await asyncio.sleep(0)  # what was gathered leaves
        async with asyncio.timeout(5):
            while any(peer.writer._task for peer in peers if "never" not in peer.kind):
                await asyncio.sleep(0.001)
        for peer in peers:
            if "gone" in peer.kind:
                assert peer.writer.closed
            elif "never" in peer.kind:
                assert peer.got == []
            elif "ack" in peer.kind and events > 3:
                assert peer.overflows == 1
            else:
                assert peer.got == list(range(events))
                assert peer.writer.can_send_inline is (peer.kind in ("quick", "late", "twice"))
        await asyncio.gather(*(peer.writer.stop() for peer in peers))

    asyncio.run(check())


async def test_a_slow_one_is_cut_while_the_others_go_on():
    peers = [Peer("never" if n == 3 else "quick") for n in range(10)]
    for number in range(20):
        fan_out([peer.writer for peer in peers], str(number), None)
    assert [peer.overflows for peer in peers] == [int(n == 3) for n in range(10)]
    assert all(len(peer.got) == 20 for peer in peers if peer.kind == "quick")
    await asyncio.gather(*(peer.writer.stop() for peer in peers))


@pytest.fixture
async def batcher():
    return Peer("batch", FrameBatcher(asyncio.get_running_loop()))


async def test_events_of_one_turn_leave_together_and_replies_keep_their_place(batcher):
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
    assert frames[2:] == [3]  # one alone is itself
    for number in range(250):
        batcher.writer.push_event(str(number))
    await asyncio.sleep(0)
    assert [len(f["events"]) for f in frames[3:]] == [100, 100, 50]


async def test_what_waits_for_a_slow_client_leaves_together(batcher):
    frames, go = [], asyncio.Event()

    async def send(message):
        await go.wait()
        frames.append(json.loads(message["text"]))

    batcher.writer.send = send
    batcher.writer.push("0")
    for text in ("1", "2"):
        batcher.writer.push_event(text)
    batcher.writer.push('"reply"')
    batcher.writer.push_event("3")
    go.set()
    assert await batcher.writer.flush(1)
    assert frames == [0, {"type": "events", "events": [1, 2]}, "reply", 3]
