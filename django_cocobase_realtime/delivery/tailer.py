"""A feed: this process's one reader of one stream.

Events come with the broker while all is well. A gap in their numbers, a bell, silence (the hub
polls) or a new subscription sends the feed to the log, where it also numbers what waits and
tells the other processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..events import Change, LogAppended, encode
from ..log.cursor import Position
from ..log.reader import StreamBatch, StreamRange, fetch_new
from ..pubsub.broker import broker
from ..utils.concurrency import DatabaseThread

logger = logging.getLogger(__name__)

MAX_INLINE_BYTES = 32 * 1024  # bytes beyond which others get a bell and read the event in the log
RETRY_INTERVAL = 1.0  # seconds between looks at a database that fails


class LogTailer:
    """Delivers each event of a stream once, in order, without a gap.

    ``deliver`` takes one event; ``lost`` is called where the position is not in the log any more.
    Belongs to one event loop.
    """

    def __init__(
        self,
        collection: str,
        thread: DatabaseThread,
        using: str,
        deliver: Callable[[Change], None],
        lost: Callable[[], None],
    ) -> None:
        self.collection = collection
        self.using = using
        self.epoch = ""
        self.seq = 0
        self.floor = 0
        self._thread = thread
        self._deliver = deliver
        self._lost = lost
        self._started = False
        self._wake = asyncio.Event()
        self._notified = False
        self._waiters: list[asyncio.Future[None]] = []
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def position(self) -> Position:
        """Up to where everything was delivered."""
        return Position(self.epoch, self.seq)

    @property
    def range(self) -> StreamRange:
        """What a client may go on from, as of the last look at the log."""
        return StreamRange(self.epoch, self.seq, self.floor)

    def stop(self) -> None:
        """Read no more."""
        self._task.cancel()

    def notify(self) -> None:
        """Look at the log: something waits there."""
        self._notified = True
        self._wake.set()

    def receive(self, change: Change) -> None:
        """An event that the broker brought."""
        if not self._started or change.seq is None:
            return
        if change.epoch != self.epoch:
            self._wake.set()
        elif change.seq == self.seq + 1:
            self.seq = change.seq
            self._deliver(change)
        elif change.seq > self.seq:
            self._wake.set()

    async def wait_caught_up(self) -> None:
        """Wait until all that was committed before this call is delivered.

        Raises what the database raises.
        """
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
                    logger.warning("The log of %r cannot be read: %r", self.collection, error)
                    _resolve(waiters, error)
                    await asyncio.sleep(RETRY_INTERVAL)
                    self._wake.set()
                else:
                    _resolve(waiters, None)
        finally:
            _resolve(self._waiters, ConnectionError("The feed was stopped."))

    async def _advance(self) -> None:
        while True:
            position = self.position if self._started else None
            rung, self._notified = self._notified, False
            progress = await self._thread.run(
                fetch_new, self.using, self.collection, position, rung
            )
            self._apply(progress)
            if not progress.more:
                return

    def _apply(self, progress: StreamBatch) -> None:
        self.floor = progress.floor
        if not self._started:
            self._started = True
            self.epoch, self.seq = progress.epoch, progress.head
        elif progress.epoch != self.epoch:
            self.epoch, self.seq = progress.epoch, progress.head
            self._lost()
        elif self.seq < progress.floor:
            # trimmed away before this process could read it, maybe all that there was
            self.seq = progress.head
            self._lost()
        for change in progress.changes:
            if change.seq == self.seq + 1:
                self.seq = change.seq
                self._deliver(change)
            elif change.seq is not None and change.seq > self.seq:
                self.seq = progress.head
                self._lost()
                break
        if progress.head > progress.start:
            self._announce_numbered(progress)

    def _announce_numbered(self, progress: StreamBatch) -> None:
        """Tell the other processes what was numbered here."""
        fresh = [c for c in progress.changes if c.seq is not None and c.seq > progress.start]
        if len(fresh) < progress.head - progress.start:
            broker.publish_to_others(LogAppended(self.collection))
            return
        for change in fresh:
            small = len(encode(change)) <= MAX_INLINE_BYTES
            broker.publish_to_others(change if small else LogAppended(self.collection))


def _resolve(waiters: list[asyncio.Future[None]], error: Exception | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
