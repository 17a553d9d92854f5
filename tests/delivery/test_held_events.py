"""Events wait for the hidden stream of the tables that permissions depend on."""

import asyncio
from types import SimpleNamespace

import pytest

from django_cocobase_realtime.declarations.dependency_table import hidden_stream
from django_cocobase_realtime.delivery import tailer as tailer_module
from django_cocobase_realtime.delivery.related_feed import RelatedFeeds
from django_cocobase_realtime.delivery.tailer import LogTailer
from django_cocobase_realtime.events import Change, LogAppended
from django_cocobase_realtime.log.reader import StreamBatch

HIDDEN = hidden_stream("default")


class Reader:
    """A reader of logs in memory, by stream. It fails if ``error`` is set."""

    def __init__(self):
        self.logs = {"tickets": [], HIDDEN: []}
        self.heads = dict.fromkeys(self.logs, 0)
        self.epochs = dict.fromkeys(self.logs, "e")
        self.floors = dict.fromkeys(self.logs, 0)
        # the events after these were numbered by the next read
        self.starts = {}
        self.reads = []
        self.error = None
        # reads wait until it is set
        self.may_read = asyncio.Event()
        self.may_read.set()

    def is_leader(self, stream):
        return False

    def release(self, stream):
        pass

    async def fetch_new(self, stream, position, *, notified=False):
        self.reads.append(stream)
        await self.may_read.wait()
        if self.error is not None:
            raise self.error
        epoch, head = self.epochs[stream], self.heads[stream]
        changes = []
        if position is not None and position.epoch == epoch:
            changes = [change for change in self.logs[stream] if change.seq > position.seq]
        start = self.starts.pop(stream, head)
        return StreamBatch(epoch, self.floors[stream], start, head, changes, False)

    def commit(self, change):
        """Add an event to the log, without delivering it; return it."""
        self.logs[change.collection].append(change)
        self.heads[change.collection] = change.seq
        return change


def membership(seq):
    return Change(f"m{seq}", HIDDEN, "deleted", "1", "t", "", epoch="e", seq=seq)


def ticket(seq, needed, epoch="e"):
    return Change(
        f"t{seq}", "tickets", "updated", "1", "t", "", epoch=epoch, seq=seq, related_seq=needed
    )


class Groups:
    """Groups of a channel layer, with the number of users of each."""

    def __init__(self):
        self.users = {}

    async def acquire(self, group, timeout):
        self.users[group] = self.users.get(group, 0) + 1

    def release(self, group):
        self.users[group] -= 1


def create_tailer(process):
    return LogTailer(
        "tickets",
        process.reader,
        "default",
        deliver=lambda change: process.delivered.append(change.id),
        on_position_lost=lambda: process.delivered.append("tickets lost"),
        announce=process.announced.append,
        is_complete=lambda change: True,
        restore=list,
        related=process.feed,
    )


@pytest.fixture
async def process(monkeypatch):
    """A tailer and the feed of its hidden stream, and what they have delivered, in order."""
    monkeypatch.setattr(tailer_module, "RETRY_INTERVAL", 0.02)
    reader, delivered = Reader(), []
    process = SimpleNamespace(reader=reader, delivered=delivered, failures=[], groups=Groups())
    process.announced = []

    async def deliver_related(using, changes):
        await process.may_handle.wait()
        if process.failures:
            raise process.failures.pop()
        delivered.extend(change.id for change in changes)

    def lose(using):
        if process.failures:
            raise process.failures.pop()
        delivered.append("lost")

    process.feeds = RelatedFeeds(
        process.groups,
        lambda using: reader,
        announce=lambda event: None,
        on_changes=deliver_related,
        on_lost=lose,
    )
    process.may_handle = asyncio.Event()
    process.may_handle.set()
    process.feed = await process.feeds.open("default")
    process.hidden = process.feed.tailer
    process.tailer = create_tailer(process)
    await process.tailer.wait_caught_up()
    reader.reads.clear()
    yield process
    process.tailer.stop()
    process.feeds.stop()


async def wait_for(process, *ids):
    async with asyncio.timeout(5):
        while process.delivered != list(ids):
            await asyncio.sleep(0.001)


async def test_event_waits_until_changes_committed_before_are_handled(process):
    process.reader.may_read.clear()
    process.may_handle.clear()
    process.tailer.receive(ticket(1, 1))
    process.tailer.receive(ticket(2, 0))  # keeps its place
    await asyncio.sleep(0.01)
    assert process.delivered == []
    for seq in (1, 2):
        process.hidden.receive(membership(seq))
        await asyncio.sleep(0.01)
    assert process.delivered == []
    process.may_handle.set()
    await wait_for(process, "m1", "t1", "t2", "m2")
    assert process.tailer.position.seq == 2
    process.tailer.receive(ticket(3, 1))
    assert process.delivered[4:] == ["t3"]


async def test_event_that_waits_makes_the_process_read_the_hidden_stream(process):
    """The announcement of the membership was lost."""
    process.reader.commit(membership(1))
    process.tailer.receive(process.reader.commit(ticket(1, 1)))
    assert process.delivered == []
    await wait_for(process, "m1", "t1")
    assert process.reader.reads[0] == HIDDEN


async def test_events_that_are_read_wait_too(process):
    process.reader.commit(membership(1))
    process.reader.commit(ticket(1, 0))
    process.reader.commit(ticket(2, 1))
    process.tailer.notify()
    await wait_for(process, "t1", "m1", "t2")


async def test_changes_that_were_numbered_with_an_event_are_announced(process):
    """Other processes may follow the hidden stream for another collection."""
    process.reader.commit(membership(1))
    change = process.reader.commit(ticket(1, 1))
    process.reader.starts["tickets"] = 0
    process.tailer.notify()
    await wait_for(process, "m1", "t1")
    assert process.announced == [change, LogAppended(HIDDEN, numbered=True)]
    process.announced.clear()
    change = process.reader.commit(ticket(2, 1))
    process.reader.starts["tickets"] = 1
    process.tailer.notify()
    await wait_for(process, "m1", "t1", "t2")
    assert process.announced == [change]


async def test_changes_of_one_read_are_all_known_before_the_event(process):
    process.reader.may_read.clear()
    process.tailer.receive(ticket(1, 1))
    process.reader.commit(membership(1))
    process.reader.commit(membership(2))
    process.reader.may_read.set()
    await wait_for(process, "m1", "m2", "t1")


async def test_event_of_an_older_process_waits_for_a_read_of_the_hidden_stream(process):
    """It was numbered without the head of the hidden stream."""
    process.reader.commit(membership(1))
    process.tailer.receive(process.reader.commit(ticket(1, None)))
    assert process.delivered == []
    await wait_for(process, "m1", "t1")


async def test_event_that_needs_more_than_there_is_does_not_wait_forever(process):
    """Its number is that of a hidden stream which was lost."""
    process.tailer.receive(process.reader.commit(ticket(1, 1000)))
    await wait_for(process, "t1")


async def test_subscribing_reads_the_hidden_stream_first(process):
    process.reader.commit(membership(1))
    process.reader.commit(ticket(1, 1))
    await process.tailer.wait_caught_up()
    assert process.delivered == ["m1", "t1"]
    assert process.reader.reads == [HIDDEN, "tickets"]


async def test_subscribing_waits_until_events_that_are_held_are_delivered(process):
    process.reader.may_read.clear()
    process.tailer.receive(process.reader.commit(ticket(1, 1)))
    waiting = asyncio.create_task(process.tailer.wait_caught_up())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    process.reader.commit(membership(1))
    process.reader.may_read.set()
    await waiting
    assert process.delivered == ["m1", "t1"]


async def test_event_waits_while_the_hidden_stream_cannot_be_read(process):
    process.reader.error = OSError("no database")
    process.reader.commit(membership(1))
    process.tailer.receive(process.reader.commit(ticket(1, 1)))
    await asyncio.sleep(0.1)
    assert process.delivered == []
    with pytest.raises(OSError, match="no database"):
        await process.tailer.wait_caught_up()
    process.reader.error = None
    await wait_for(process, "m1", "t1")


@pytest.mark.parametrize("reason", ["epoch", "floor"])
async def test_lost_position_of_the_hidden_stream_is_known_before_the_event(process, reason):
    process.hidden.receive(membership(1))
    if reason == "epoch":
        process.reader.epochs[HIDDEN] = "f"
    process.reader.heads[HIDDEN] = process.reader.floors[HIDDEN] = 9
    process.tailer.receive(process.reader.commit(ticket(1, 5)))
    await wait_for(process, "m1", "lost", "t1")


async def test_event_waits_until_the_failure_of_a_change_is_handled(process):
    """Anything may have changed for those whom the change concerns."""
    process.failures += [RuntimeError("again"), RuntimeError("on_changes")]
    process.reader.commit(membership(1))
    process.hidden.receive(membership(1))
    process.tailer.receive(process.reader.commit(ticket(1, 1)))
    assert process.delivered == []
    await wait_for(process, "lost", "t1")
    assert process.failures == []


async def test_new_epoch_of_the_stream_drops_events_that_are_held(process):
    process.reader.may_read.clear()
    process.tailer.notify()
    await asyncio.sleep(0.01)
    process.tailer.receive(ticket(1, 1))
    process.reader.epochs["tickets"] = "f"
    process.reader.heads["tickets"] = 7
    process.reader.may_read.set()
    await wait_for(process, "tickets lost")
    process.hidden.receive(membership(1))
    await wait_for(process, "tickets lost", "m1")
    assert process.tailer.position.seq == 7


async def test_events_beyond_the_limit_are_read_from_the_log(process, monkeypatch):
    monkeypatch.setattr(tailer_module, "MAX_HELD", 2)
    process.reader.may_read.clear()
    for seq in range(1, 6):
        process.tailer.receive(process.reader.commit(ticket(seq, 1)))
    assert len(process.tailer._held) == 2
    process.reader.commit(membership(1))
    process.reader.may_read.set()
    await wait_for(process, "m1", "t1", "t2", "t3", "t4", "t5")


async def test_stopped_tailer_delivers_nothing(process):
    stopped = create_tailer(process)
    await stopped.wait_caught_up()
    process.reader.may_read.clear()
    stopped.receive(ticket(1, 1))
    stopped.stop()
    process.hidden.receive(membership(1))
    await wait_for(process, "m1")


async def test_feed_is_shared_by_topics_and_joins_its_group_once(process):
    assert await process.feeds.open("default") is process.feed
    assert list(process.groups.users.values()) == [1]
    assert process.feeds.tailer(HIDDEN) is process.hidden
    process.feeds.stop()
    assert list(process.groups.users.values()) == [0]
    assert process.feeds.tailer(HIDDEN) is None


async def test_waiting_ends_when_the_stream_is_no_longer_followed(process):
    process.may_handle.clear()
    process.hidden.receive(process.reader.commit(membership(1)))
    waiting = asyncio.create_task(process.feed.wait_caught_up())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    process.feeds.stop()
    with pytest.raises(ConnectionError):
        await waiting
