"""The tailer, which follows the log of one collection and delivers its events without gaps.

Normally, events arrive through the channel layer. The tailer reads the log if a number is missing,
if it is notified of new events, for a new subscription, and regularly (the hub does this, in case
a notification was lost). When it reads, it also numbers events that have no number yet, and
announces them to the other processes.

Events of a collection whose permissions depend on other tables are held until the tailer of these
tables' hidden stream has delivered all changes that were committed before them. If a membership
ended before a ticket was changed, each process first learns of the former.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..events import Change, Event, LogAppended, encode
from ..log.cursor import Position
from ..log.log_reader import LogReader
from ..log.reader import StreamBatch, StreamRange
from ..log.retention import rotate_epoch
from ..metrics import metrics
from ..utils.repeated_log import log_repeated

logger = logging.getLogger(__name__)

# other processes are sent events up to this size; they read larger ones from the log
MAX_INLINE_BYTES = 32 * 1024
# seconds before the log is read again after an exception of the database
RETRY_INTERVAL = 1.0
# seconds that another process has to number an event, before this one does so; up to twice as
# many, so that several processes do not do so at the same time
LEADER_TIMEOUT = 0.1
# received events that are held at most; further ones are read from the log
MAX_HELD = 1000


class HiddenStream(Protocol):
    """The changes of tables that permissions depend on, as far as they were handled."""

    # the name of the stream
    stream: str

    @property
    def position(self) -> Position:
        """The position of the last handled change; its epoch is empty if that is not known."""

    def follow(self, follower: Callable[[], None]) -> None:
        """Call a function whenever the position has changed."""

    def unfollow(self, follower: Callable[[], None]) -> None:
        """Undo `follow`."""

    async def wait_caught_up(self) -> None:
        """Wait until all changes that were committed before this call are handled."""


class LogTailer:
    """Delivers each event of a stream once, in order. Belongs to one event loop.

    ``deliver`` is called with each event, ``on_position_lost`` if the log no longer holds the
    events after the tailer's position, ``announce`` with what other processes must know. ``reader``
    reads the log, in the database ``using``. Events for which ``is_complete`` is false are prepared
    by ``restore``, in a thread. ``related`` is the hidden stream, if the permissions of the
    collection depend on other tables.
    """

    def __init__(
        self,
        collection: str,
        reader: LogReader,
        using: str,
        *,
        deliver: Callable[[Change], None],
        on_position_lost: Callable[[], None],
        announce: Callable[[Event], None],
        is_complete: Callable[[Change], bool],
        restore: Callable[[list[Change]], list[Change]],
        related: HiddenStream | None = None,
    ) -> None:
        # name of the collection
        self.collection = collection
        # alias of the database that contains the log
        self.using = using
        # epoch of the last delivered event
        self.epoch = ""
        # number of the last delivered event
        self.seq = 0
        # number of the last event that was removed from the log
        self.floor = 0
        # reads the log
        self._reader = reader
        # called with each event
        self._deliver = deliver
        # called if the log no longer contains the events after the tailer's position
        self._on_position_lost = on_position_lost
        # publishes an event to the other processes
        self._announce = announce
        self._is_complete = is_complete
        self._restore = restore
        # the hidden stream; None if permissions depend on no other tables
        self._related = related
        # the events that follow the last delivered one, and wait for the hidden stream
        self._held: deque[Change] = deque()
        # called after events were delivered, in the same iteration of the event loop
        self._followers: list[Callable[[], None]] = []
        if related is not None:
            related.follow(self._deliver_held)
        # the last event that this process has numbered, or the last one when it began to read
        self._numbered_until = 0
        # the epoch that must end, so that all clients fetch everything again
        self._epoch_to_end: str | None = None
        # whether the log was read at least once
        self._started = False
        # set when the log must be read
        self._wake = asyncio.Event()
        # whether the log is known to have new events
        self._notified = False
        # ends the time in which another process must have numbered announced events
        self._leader_timer: asyncio.TimerHandle | None = None
        # futures of `wait_caught_up`, which end after the next read
        self._waiters: list[asyncio.Future[None]] = []
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def position(self) -> Position:
        """The position of the last delivered event."""
        return Position(self.epoch, self.seq)

    @property
    def range(self) -> StreamRange:
        """The positions from which a client can resume, as of the last read of the log."""
        return StreamRange(self.epoch, self.seq, self.floor)

    @property
    def may_lead(self) -> bool:
        """Whether no other process is known to be the only one that numbers the events."""
        return self._reader.is_leader(self.collection) is not False

    @property
    def is_leader(self) -> bool:
        """Whether this process must number the events that another process announces.

        If the database does not choose a leader, it is the process that numbered the last event.
        """
        leads = self._reader.is_leader(self.collection)
        return self._last_seq <= self._numbered_until if leads is None else leads

    @property
    def _last_seq(self) -> int:
        """The number of the last event that was delivered or is held."""
        return self.seq + len(self._held)

    def follow(self, follower: Callable[[], None]) -> None:
        """Call a function whenever events were delivered, or the position was lost.

        Functions are called in the order in which they were added.
        """
        self._followers.append(follower)

    def unfollow(self, follower: Callable[[], None]) -> None:
        """Undo `follow`."""
        self._followers.remove(follower)

    def stop(self) -> None:
        """Stop reading."""
        self._task.cancel()
        if self._leader_timer is not None:
            self._leader_timer.cancel()
        self._held.clear()
        if self._related is not None:
            self._related.unfollow(self._deliver_held)
        self._reader.release(self.collection)

    def notify(self) -> None:
        """Read the log, because it has new events."""
        self._notified = True
        self._wake.set()

    def receive_announcement(self, announcement: LogAppended) -> None:
        """Handle an announcement of another process that the log has new events.

        If they have no number yet, and another process is the leader of the stream, it numbers them
        and sends them. If nothing arrives from it in time, it may have ended.
        """
        if announcement.numbered or self.is_leader:
            self.notify()
        elif self._leader_timer is None:
            loop = asyncio.get_running_loop()
            delay = LEADER_TIMEOUT * (1 + random.random())  # noqa: S311 - not a secret
            self._leader_timer = loop.call_later(delay, self._read_if_unchanged, self.position)

    def _read_if_unchanged(self, position: Position) -> None:
        self._leader_timer = None
        if self.position == position:
            self.notify()

    def rotate_epoch(self) -> None:
        """Begin a new epoch: clients are disconnected and fetch everything again.

        If several processes call this in one epoch, only one new epoch begins.
        """
        self._epoch_to_end = self.epoch
        self._wake.set()

    def lose_position(self) -> None:
        """Read the log, and behave as if it did not contain the next events."""
        self.epoch = ""
        self._wake.set()

    def receive(self, change: Change) -> None:
        """Handle an event that arrived through the channel layer."""
        if not self._started or change.seq is None:
            return
        if change.epoch != self.epoch:
            self._wake.set()
        elif change.seq == self._last_seq + 1 and self._may_accept(change):
            self._deliver_or_hold(change)
            self._call_followers()
            if self._held:
                self._wake.set()
        elif change.seq > self._last_seq:
            self._wake.set()

    def _may_accept(self, change: Change) -> bool:
        return len(self._held) < MAX_HELD and self._is_complete(change)

    async def wait_caught_up(self) -> None:
        """Wait until all events that were committed before this call are delivered.

        Those of the hidden stream are delivered first. Raises the exception of the database if the
        log cannot be read.
        """
        if self._related is not None:
            await self._related.wait_caught_up()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wake.set()
        await waiter

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                waiters, self._waiters = self._waiters, []
                try:
                    await self._advance()
                except Exception as error:
                    text = "The log of %r cannot be read: %r"
                    name = self.collection
                    log_repeated(logger, logging.WARNING, text, name, error, kind=name)
                    _resolve(waiters, error)
                    await asyncio.sleep(RETRY_INTERVAL)
                    self._wake.set()
                else:
                    _resolve(waiters, None)
        finally:
            _resolve(self._waiters, ConnectionError("The tailer was stopped."))

    async def _advance(self) -> None:
        await self._wait_for_related()
        while True:
            position = Position(self.epoch, self._last_seq) if self._started else None
            notified, self._notified = self._notified, False
            if (epoch := self._epoch_to_end) is not None:
                await self._reader.run(rotate_epoch, self.using, [self.collection], epoch=epoch)
                self._epoch_to_end = None
            batch = await self._reader.fetch_new(self.collection, position, notified=notified)
            changes = batch.changes
            if not all(map(self._is_complete, changes)):
                changes = await self._reader.run(self._restore, changes)
            try:
                self._apply(batch, changes)
            finally:
                self._call_followers()
            await self._wait_for_related()
            if not batch.more:
                return

    async def _wait_for_related(self) -> None:
        """Deliver the held events, after the hidden stream was read.

        It contains all that was committed before them. Their ``related_seq`` may be unknown, or
        never be reached after a backup was restored.
        """
        if self._related is None or not self._held:
            return
        last = self._last_seq
        await self._related.wait_caught_up()
        while self._held and self.seq < last:
            self._deliver_next(self._held.popleft())
        self._deliver_held()
        if self._held:  # received in the meantime
            self._wake.set()

    def _apply(self, batch: StreamBatch, restored: list[Change]) -> None:
        self.floor = batch.floor
        if not self._started:
            self._started = True
            self.epoch, self.seq = batch.epoch, batch.head
            self._numbered_until = batch.head
        elif batch.epoch != self.epoch:
            self._numbered_until = batch.head
            self._skip_to_head(batch)
        elif self._last_seq < batch.floor:
            # events were removed from the log before this process has read them
            self._skip_to_head(batch)
        for change in restored:
            if change.seq == self._last_seq + 1:
                self._deliver_or_hold(change)
            elif change.seq is not None and change.seq > self._last_seq:
                self._skip_to_head(batch)
                break
        if batch.head > batch.start:
            metrics.numbered += batch.head - batch.start
            self._numbered_until = batch.head
            self._announce_numbered(batch)
            if self._related is not None and self._held:
                # numbered together with these events, unless another process has announced them
                self._announce(LogAppended(self._related.stream, numbered=True))

    def _skip_to_head(self, batch: StreamBatch) -> None:
        """Continue after the last event, because the log no longer contains the next ones."""
        self._held.clear()
        self.epoch, self.seq = batch.epoch, batch.head
        try:
            self._on_position_lost()
        except BaseException:
            self.epoch = ""  # the next read calls it again
            raise

    def _deliver_or_hold(self, change: Change) -> None:
        if self._held or not self._has_reached(change):
            self._held.append(change)
        else:
            self._deliver_next(change)

    def _has_reached(self, change: Change) -> bool:
        """Return whether all that was committed before an event is known here."""
        related, needed = self._related, change.related_seq
        if related is None:
            return True
        position = related.position
        return needed is not None and position.epoch != "" and position.seq >= needed

    def _deliver_held(self) -> None:
        """Deliver the held events that the hidden stream has reached."""
        while self._held and self._has_reached(self._held[0]):
            self._deliver_next(self._held.popleft())

    def _deliver_next(self, change: Change) -> None:
        """Deliver an event. One that raises is skipped, so that those after it are delivered."""
        assert change.seq is not None
        self.seq = change.seq
        try:
            self._deliver(change)
        except Exception:
            text, name = "Event %s of %r cannot be delivered.", self.collection
            log_repeated(logger, logging.ERROR, text, self.seq, name, kind=name, exc_info=True)

    def _call_followers(self) -> None:
        for follower in list(self._followers):
            follower()

    def _announce_numbered(self, batch: StreamBatch) -> None:
        """Announce the events that this read has numbered to the other processes."""
        numbered = [c for c in batch.changes if c.seq is not None and c.seq > batch.start]
        if len(numbered) < batch.head - batch.start:
            self._announce(LogAppended(self.collection, numbered=True))
            return
        for change in numbered:
            is_small = len(encode(change)) <= MAX_INLINE_BYTES
            self._announce(change if is_small else LogAppended(self.collection, numbered=True))


def _resolve(waiters: list[asyncio.Future[None]], error: Exception | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
