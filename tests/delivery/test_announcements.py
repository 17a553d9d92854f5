"""Announcements of another process: what they make a tailer do."""

import asyncio
from types import SimpleNamespace

import pytest

from django_cocobase_realtime.delivery import tailer as tailer_module
from django_cocobase_realtime.delivery.tailer import LogTailer
from django_cocobase_realtime.events import Change, LogAppended, decode, encode
from django_cocobase_realtime.log.reader import StreamBatch

TIMEOUT = 0.1
UNNUMBERED, NUMBERED = LogAppended("posts"), LogAppended("posts", numbered=True)


class Reader:
    """A reader that counts the reads of the log; the process leads if ``leads``."""

    def __init__(self):
        self.reads = 0
        self.head = 0
        self.unnumbered = []
        self.leads = False
        self.released = []
        self.is_leader = lambda collection: self.leads
        self.release = self.released.append

    async def fetch_new(self, collection, position, *, notified=False):
        self.reads += 1
        start = self.head
        changes, self.unnumbered = self.unnumbered, []
        if changes:
            self.head = changes[-1].seq
        return StreamBatch("e", 0, start, self.head, changes, False)

    def numbers(self, change):
        """Let the next read number and return an event, after those of other processes."""
        self.head = change.seq - 1
        self.unnumbered.append(change)


def created(seq, **options):
    return Change(str(seq), "posts", "created", "1", "t", "", epoch="e", seq=seq, **options)


@pytest.fixture
async def process(monkeypatch):
    """A tailer that has read the log once, its reader, and the events that it has announced."""
    monkeypatch.setattr(tailer_module, "LEADER_TIMEOUT", TIMEOUT)
    reader, announced = Reader(), []
    tailer = LogTailer(
        "posts",
        reader,
        "default",
        deliver=lambda change: None,
        on_position_lost=lambda: None,
        announce=announced.append,
        is_complete=lambda change: True,
        restore=list,
    )
    await tailer.wait_caught_up()
    reader.reads = 0
    yield SimpleNamespace(tailer=tailer, reader=reader, announced=announced)
    tailer.stop()
    assert "posts" in reader.released


async def test_leader_reads_at_once(process):
    process.reader.leads = True
    process.tailer.receive_announcement(UNNUMBERED)
    await asyncio.sleep(0.01)
    assert process.reader.reads == 1


async def test_follower_reads_events_with_numbers_at_once(process):
    process.tailer.receive_announcement(NUMBERED)
    await asyncio.sleep(0.01)
    assert process.reader.reads == 1


async def test_follower_waits_for_the_leader(process):
    process.tailer.receive_announcement(UNNUMBERED)
    await asyncio.sleep(TIMEOUT / 2)
    process.tailer.receive(created(1))
    await asyncio.sleep(TIMEOUT * 2)
    assert process.reader.reads == 0
    assert process.tailer.position.seq == 1


async def test_follower_reads_if_the_leader_is_gone(process):
    for _ in range(3):
        process.tailer.receive_announcement(UNNUMBERED)
    await asyncio.sleep(TIMEOUT / 2)
    assert process.reader.reads == 0
    await asyncio.sleep(TIMEOUT * 2)
    assert process.reader.reads == 1
    process.tailer.receive_announcement(UNNUMBERED)
    await asyncio.sleep(TIMEOUT * 2.5)
    assert process.reader.reads == 2


async def test_stopped_tailer_does_not_wait_for_the_leader(process):
    process.tailer.receive_announcement(UNNUMBERED)
    process.tailer.stop()
    await asyncio.sleep(TIMEOUT * 2.5)
    assert not process.tailer._wake.is_set()


async def test_process_of_the_save_reads_at_once(process):
    process.tailer.notify()
    await asyncio.sleep(0.01)
    assert process.reader.reads == 1


async def test_without_a_lock_the_process_that_numbered_last_is_the_leader(process):
    process.reader.leads = None
    process.tailer.receive_announcement(UNNUMBERED)
    await asyncio.sleep(0.01)
    assert process.reader.reads == 1  # no process has numbered an event yet
    process.tailer.receive(created(1))
    assert not process.tailer.is_leader
    assert process.tailer.may_lead
    process.tailer.receive_announcement(UNNUMBERED)
    await asyncio.sleep(TIMEOUT / 2)
    assert process.reader.reads == 1
    process.reader.numbers(created(2))
    await asyncio.sleep(TIMEOUT * 2)
    assert process.reader.reads == 2  # the other process did not number it
    assert process.announced == [created(2)]
    assert process.tailer.is_leader
    process.tailer.receive(created(2))  # its own
    assert process.tailer.is_leader


async def test_without_a_lock_one_of_two_processes_that_number_at_once_is_the_leader(process):
    """Each of them numbers some of the events, and receives those of the other."""
    process.reader.leads = None
    process.reader.numbers(created(2))
    process.tailer.notify()
    process.tailer.receive(created(1))
    await asyncio.sleep(0.01)
    process.tailer.receive(created(1))
    assert process.tailer.is_leader
    process.tailer.receive(created(3))
    assert not process.tailer.is_leader


async def test_large_events_are_announced_as_numbered(process):
    process.reader.numbers(created(1, after={"t": "x" * 40_000}))
    process.tailer.notify()
    await asyncio.sleep(0.01)
    assert process.announced == [NUMBERED]


def test_announcement_of_an_older_version_is_decoded():
    """Processes of both versions run side by side while a project is deployed."""
    assert decode(b'{"type":"bell","collection":"posts"}') == UNNUMBERED
    assert encode(UNNUMBERED) == b'{"type":"bell","collection":"posts"}'
    assert decode(encode(NUMBERED)) == NUMBERED
