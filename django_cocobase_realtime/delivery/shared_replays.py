"""Changes that several clients replay: read from the log once, and encoded once.

Clients that return after an interruption have missed nearly the same changes. The first one reads
them, the others wait for it, and for a short time they stay in memory for those that follow.
Changes that are delivered meanwhile are added. Numbered changes never change, so a client may
be sent those that were read for another; its own filter decides about each.

Replays with row permissions, and of changes with incomplete images, are read by each client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Sequence
from itertools import takewhile

from ..conf import conf
from ..declarations.collection import Collection
from ..declarations.soft_delete import apply_soft_delete
from ..events import Change, encode
from ..log.cursor import Position
from ..log.reader import read_events
from ..utils.concurrency import current_owner, run_in_threadpool
from ..utils.fair_queue import WorkersOverloaded
from .event_frames import ChangeFrames
from .incomplete_images import is_complete
from .subscription import Subscription

# bytes of the images that are read in one call
PAGE_BYTES = 256 * 1024
# bytes of the changes of a topic that are kept, besides their frames
MAX_KEPT_BYTES = 512 * 1024
# forms in which the frames of a change are kept: for several names of subscriptions, and fields
MAX_FORMS = 4
# seconds after the last use for which changes are kept
KEEP_SECONDS = 5.0
# seconds after which another read begins, since the client whose turn a read takes may be slow
MAX_WAIT = 2.0
# number of such times after which a client reads alone
MAX_ROUNDS = 3


class KeptChange:
    """A change and its frames, for the subscriptions that replay it."""

    __slots__ = ("_after", "_before", "_collection", "_frames", "seq", "size", "visible")

    def __init__(self, collection: Collection, change: Change, visible: Change | None) -> None:
        # its number
        self.seq = change.seq or 0
        # bytes of memory, roughly
        self.size = len(encode(change))
        # the change as clients must see it; None if they must not
        self.visible = visible
        before, after = (None, None) if visible is None else (visible.before, visible.after)
        # the row before and after the change
        self._before = None if before is None else collection.row(before)
        self._after = None if after is None else collection.row(after)
        self._frames: ChangeFrames | None = None

    def texts(self, subscription: Subscription) -> list[str]:
        """Return the frames that a subscription must get."""
        visible = self.visible
        if visible is None:
            return []
        matches = subscription.query.filter.matches
        event = subscription.frame_spec.event_for(
            visible,
            self._before is not None and matches(self._before),
            self._after is not None and matches(self._after),
        )
        if event is None:
            return []
        if self._frames is None or self._frames.forms >= MAX_FORMS:
            self._frames = ChangeFrames(visible, conf.limits.event_bytes, replayed=True)
        return self._frames.texts([(subscription, event)])


class _Read:
    """A read of changes, for the clients that have joined it."""

    def __init__(self, after: Position, until: int, account: Hashable) -> None:
        # the account whose turn it takes
        self.account = account
        # the changes after this position and up to this number are read, or the first of them
        self.after = after
        self.until = until
        # clients that wait for it
        self.members = 0
        self.task: asyncio.Task[list[KeptChange]]

    def may_contain(self, epoch: str, seq: int) -> bool:
        """Return whether a change may be among those that are read."""
        return self.after.epoch == epoch and self.after.seq < seq <= self.until


class SharedReplays:
    """The changes of one topic that are read, or were read a moment ago. For one event loop."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        # the epoch of the changes that are kept
        self._epoch = ""
        # those that are kept by number, the oldest first
        self._kept: dict[int, KeptChange] = {}
        self._kept_bytes = 0
        # number of changes that the last read has returned
        self._page_length = conf.limits.replay_events
        # number of the last one that was delivered or read, if it is kept
        self._last = 0
        self._reads: list[_Read] = []
        # time of the event loop at which a change was last asked for
        self._used_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, after: Position, until: int) -> Sequence[KeptChange]:
        """Return the first changes after a position, but none after the number ``until``.

        Returns nothing if the client must read the log itself. Raises the exception with which a
        read failed, which is the same for all clients that have joined it.
        """
        wanted = after.seq + 1
        if kept := self._find(after.epoch, wanted, until):
            return kept
        if read := self._last_read(after.epoch, wanted):
            if changes := await self._wait(read, after, until):
                return changes
            # a page has a limited size, so that it may have ended before the wanted change
            if kept := self._find(after.epoch, wanted, until):
                return kept
        read = self._last_read(after.epoch, wanted) or self._start(after, until)
        return await self._wait(read, after, until)

    def note(self, change: Change, visible: Change | None) -> None:
        """Keep a change that is delivered, if those before it are kept."""
        if not self._kept or (change.epoch, change.seq) != (self._epoch, self._last + 1):
            return
        if is_complete(self._collection, change):
            self._keep([KeptChange(self._collection, change, visible)])

    def stop(self) -> None:
        """Cancel all reads, and forget all changes."""
        for read in self._reads:
            read.task.cancel()
        self._forget()
        if self._timer is not None:
            self._timer.cancel()

    # private

    def _find(self, epoch: str, seq: int, until: int) -> list[KeptChange]:
        """Return the changes from a number on that are kept without a gap, up to a page."""
        self._used_at = asyncio.get_running_loop().time()
        if epoch != self._epoch:
            return []
        page: list[KeptChange] = []
        size = 0
        while seq <= until and (kept := self._kept.get(seq)) is not None:
            size += kept.size
            if page and size > PAGE_BYTES:
                break
            page.append(kept)
            seq += 1
        return page

    def _last_read(self, epoch: str, seq: int, joined: Sequence[_Read] = ()) -> _Read | None:
        """Return the last read, besides those in ``joined``, that may contain a change."""
        reads = reversed(self._reads)
        return next(
            (
                read
                for read in reads
                if read not in joined
                and read.may_contain(epoch, seq)
                and seq - read.after.seq <= self._page_length
            ),
            None,
        )

    def _start(self, after: Position, until: int) -> _Read:
        # the time counts for the client that was the first to join
        read = _Read(after, until, current_owner().account)
        read.task = asyncio.get_running_loop().create_task(self._run(read))
        read.task.add_done_callback(_retrieve_exception)
        self._reads.append(read)
        return read

    async def _run(self, read: _Read) -> list[KeptChange]:
        try:
            changes = await run_in_threadpool(
                _read_changes, self._collection, read.after, read.until
            )
        finally:
            if read in self._reads:
                self._reads.remove(read)
        if read.after.epoch != self._epoch:
            self._forget()
            self._epoch = read.after.epoch
        self._page_length = max(1, len(changes))
        self._keep(changes)
        return changes

    async def _wait(self, read: _Read, after: Position, until: int) -> list[KeptChange]:
        """Return the changes after a position of a read that has begun; nothing without them.

        If it takes long, it may be because the account whose turn it takes has used much time. So
        a client of another account begins a further read, and the others wait for both.
        """
        joined: list[_Read] = []
        try:
            for _ in range(MAX_ROUNDS):
                if read not in joined:
                    read.members += 1
                    joined.append(read)
                tasks = [read.task for read in joined]
                await asyncio.wait(tasks, timeout=MAX_WAIT, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        return _result(task, after.seq + 1, until)
                if kept := self._find(after.epoch, after.seq + 1, until):
                    return kept
                accounts = [read.account for read in joined]
                if other := self._last_read(after.epoch, after.seq + 1, joined):
                    read = other
                elif current_owner().account not in accounts:
                    read = self._start(after, until)
            return []
        finally:
            for read in joined:
                read.members -= 1
                if read.members == 0 and not read.task.done():
                    if read in self._reads:
                        self._reads.remove(read)
                    read.task.cancel()

    def _keep(self, changes: Iterable[KeptChange]) -> None:
        for change in changes:
            if (replaced := self._kept.pop(change.seq, None)) is not None:
                self._kept_bytes -= replaced.size
            self._kept[change.seq] = change
            self._kept_bytes += change.size
            self._last = max(self._last, change.seq)
        while self._kept_bytes > MAX_KEPT_BYTES:
            self._kept_bytes -= self._kept.pop(next(iter(self._kept))).size
        if self._kept and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(KEEP_SECONDS, self._forget_if_unused)

    def _forget_if_unused(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        at = self._used_at + KEEP_SECONDS
        if at > loop.time():
            self._timer = loop.call_at(at, self._forget_if_unused)
        else:
            self._forget()

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = self._last = 0


def _result(task: asyncio.Task[list[KeptChange]], seq: int, until: int) -> list[KeptChange]:
    """Return the changes from a number on that a read has found; nothing if it lacks the first."""
    if task.cancelled() or isinstance(task.exception(), WorkersOverloaded):
        return []  # this concerns the client whose turn the read has taken
    changes = [change for change in task.result() if seq <= change.seq <= until]
    return changes if changes and changes[0].seq == seq else []


def _retrieve_exception(task: asyncio.Task[list[KeptChange]]) -> None:
    """Prevent a warning if no client waits for the task any more."""
    if not task.cancelled():
        task.exception()


def _read_changes(collection: Collection, after: Position, until: int) -> list[KeptChange]:
    """Return the first changes after a position.

    Returns nothing if the log does not contain them, or if one has incomplete images. Uses the
    ORM: not for event loops.
    """
    changes = read_events(
        collection.database,
        collection.stream,
        after.epoch,
        after.seq,
        conf.limits.replay_events,
        until=until,
        max_bytes=PAGE_BYTES,
    )
    numbered = enumerate(changes, start=after.seq + 1)
    dense = [change for _, change in takewhile(lambda pair: pair[0] == pair[1].seq, numbered)]
    if not all(is_complete(collection, change) for change in dense):
        return []
    return [
        KeptChange(collection, change, apply_soft_delete(collection.decode(change), collection))
        for change in dense
    ]
