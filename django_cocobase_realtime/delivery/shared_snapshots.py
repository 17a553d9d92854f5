"""Snapshots that clients share: one read and one encoding for equal requests.

Requests are equal if they have the same filter (that of the permission included), fields, order
and limit, and if the context variables of their tasks are equal, such as the active language. Rows
that a permission checks one by one are never shared.

A client must not receive rows that are older than its request. So it may join a read that has not
begun, and waits for the next one otherwise. It may also join a read that has begun a moment ago,
while no change of a matching row has been delivered since: then the rows are the same, and they
are valid at the present position of the stream. Everything after that position is replayed, as
after any snapshot. A change is delivered in the iteration of the event loop in which the position
moves, so that none is missed between the two.

This needs a log, and documents that depend on nothing but the rows. Without a log, or with a
serializer, a client joins only reads that have not begun.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context, copy_context
from time import monotonic
from types import TracebackType
from typing import NamedTuple

from msgspec import Raw

from ..declarations.collection import Collection
from ..events import Change
from ..filters import Filter
from ..log.cursor import Position
from ..transport.waiting_frames import WaitingFrame, pack
from ..utils.concurrency import current_owner, run_in_threadpool
from ..utils.contexts import context_key
from ..utils.fair_queue import WorkersOverloaded
from ..wire import frames
from .incomplete_images import is_complete
from .snapshot import Pages, cursor_at, read_as_of, read_pages
from .subscription import SnapshotQuery, Subscription

# bytes of the documents of a snapshot that is shared
MAX_BYTES = 512 * 1024
# bytes of the documents of all snapshots of a topic that are kept for further clients
MAX_KEPT_BYTES = 2 * 1024 * 1024
# seconds after its beginning for which a read may be joined; writes that are not captured, such as
# raw SQL, may be missing for so long
JOIN_SECONDS = 0.1
# seconds after which a read begins although the one before it has not ended
MAX_TURN = 0.5
# seconds after which another read begins, since the client whose turn a read takes may be slow
MAX_WAIT = 2.0
# number of such times after which a client reads alone
MAX_ROUNDS = 3
# seconds for which a snapshot is known to be too large to be shared
LARGE_SECONDS = 10.0
# requests that are known to be too large
MAX_LARGE = 1000
# encodings of one snapshot that are kept: for several names of subscriptions
MAX_ENCODINGS = 2

# filter, fields, limit and order, and context variables
_Key = tuple[Filter, tuple[str, ...] | None, SnapshotQuery, Hashable]


class SharedFrames(NamedTuple):
    """The frames of a snapshot for one client."""

    # in their order; `send_frames` removes them
    frames: deque[WaitingFrame]
    # the position from which events must follow; None without a log
    position: Position | None


class SharedSnapshot:
    """The documents of a snapshot in pages, and their frames for each name of a subscription."""

    def __init__(self, pages: Sequence[Sequence[bytes]], *, is_cut: bool) -> None:
        # each page is a JSON array
        self._pages = [b"[" + b",".join(page) + b"]" for page in pages] or [b"[]"]
        # whether more documents match
        self._is_cut = is_cut
        # bytes of the documents
        self.size = sum(map(len, self._pages))
        self._encodings: dict[tuple[str, str | None], list[WaitingFrame]] = {}

    def frames(self, name: str, cursor: str | None) -> list[WaitingFrame]:
        """Return the frames for subscriptions with a name, from a position on."""
        encoded = self._encodings.get((name, cursor))
        if encoded is None:
            if len(self._encodings) >= MAX_ENCODINGS:
                self._encodings.clear()
            encoded = [self._encode(number, name, cursor) for number in range(len(self._pages))]
            self._encodings[name, cursor] = encoded
        return encoded

    def _encode(self, number: int, name: str, cursor: str | None) -> WaitingFrame:
        more = number + 1 < len(self._pages)
        frame = frames.snapshot(name, [], cursor, more=more)
        frame["documents"] = Raw(self._pages[number])
        if not more and self._is_cut:
            frame["truncated"] = True
        return pack(frames.encode(frame))


class _Read:
    """A read of a snapshot, for the clients that have joined it."""

    def __init__(self, account: Hashable) -> None:
        # the account whose turn it takes
        self.account = account
        # the result; None if it is too large to be shared, or if the read has failed
        self.snapshot: SharedSnapshot | None = None
        # the exception with which it has failed, and where it was raised
        self.error: Exception | None = None
        self.traceback: TracebackType | None = None
        # the position at which the rows are valid; None without a log, and before it begins
        self.position: Position | None = None
        # monotonic time at which it began, None before
        self.began_at: float | None = None
        # whether a matching row may have changed since it began
        self.is_outdated = False
        # clients that wait for it
        self.members = 0
        # done when it has ended
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None]


class _Reads:
    """The reads for one key."""

    def __init__(self, context: Context) -> None:
        # keeps the values of context variables, so that no others are equal to them
        self.context = context
        # the last one that has begun
        self.current: _Read | None = None
        # the one that begins next
        self.next: _Read | None = None
        # those that have begun and not ended
        self.running: set[_Read] = set()


class SharedSnapshots:
    """The snapshots of one topic that are read, or were read a moment ago.

    Belongs to one event loop. ``get_position`` returns the position of the topic's last delivered
    change, None without a log; ``catch_up`` waits until all that was committed is delivered.
    """

    def __init__(
        self,
        collection: Collection,
        get_position: Callable[[], Position | None],
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._collection = collection
        self._get_position = get_position
        self._catch_up = catch_up
        self._reads: dict[_Key, _Reads] = {}
        # bytes of the snapshots that are kept
        self._kept_bytes = 0
        # monotonic times until which snapshots count as too large
        self._large: dict[Hashable, float] = {}

    async def read(self, subscription: Subscription, query: SnapshotQuery) -> SharedFrames | None:
        """Return the frames of a snapshot that is as new as this call, and their position.

        Returns None if the client must read alone. Raises the exception with which the read failed,
        which is the same for all clients that have joined it.
        """
        if subscription.query.check is not None:
            return None
        context = copy_context()
        key: _Key = (
            subscription.query.filter,
            subscription.query.fields,
            query,
            context_key(context),
        )
        if self._large.get(key[:3], 0.0) > monotonic():
            return None
        read = await self._wait(key, context, subscription)
        if read is None:
            return None
        if isinstance(read.error, WorkersOverloaded):
            return None  # this concerns the client whose turn the read has taken
        if read.error is not None:
            raise read.error.with_traceback(read.traceback)
        if read.snapshot is None:
            return None
        cursor = cursor_at(subscription.stream, read.position)
        return SharedFrames(deque(read.snapshot.frames(subscription.name, cursor)), read.position)

    def note(self, change: Change) -> None:
        """Take note of a change that is delivered. The position of the topic is that of it."""
        for key, reads in self._reads.items():
            read = reads.current
            if read is None or read.is_outdated:
                continue
            if self._may_concern(key[0], change):
                read.is_outdated = True
            elif read.position is not None and change.seq is not None:
                if change.epoch != read.position.epoch or change.seq != read.position.seq + 1:
                    read.is_outdated = True
                else:
                    read.position = Position(read.position.epoch, change.seq)

    def expire(self) -> None:
        """Let no client join the reads that have begun."""
        for reads in self._reads.values():
            if reads.current is not None:
                reads.current.is_outdated = True

    def stop(self) -> None:
        """Cancel all reads."""
        for reads in self._reads.values():
            for read in (reads.current, reads.next):
                if read is not None:
                    read.task.cancel()
        self._reads.clear()

    # private

    def _may_concern(self, filter: Filter, change: Change) -> bool:
        """Return whether a row may have begun or ceased to match, or changed while it matched."""
        collection = self._collection
        if not is_complete(collection, change):
            return True
        if change.op == "updated" and change.before is None:
            return True  # it is not known whether the row matched before
        if change.op == "deleted" and change.before is None:
            return True
        images = (change.before, change.after)
        try:
            decoded = collection.decode(change) if collection.codec.raw_names else change
            images = (decoded.before, decoded.after)
            return any(
                image is not None and filter.decide(collection.row(image)) is not False
                for image in images
            )
        except Exception:  # of a field of the project; the change itself is handled elsewhere
            return True

    async def _wait(self, key: _Key, context: Context, subscription: Subscription) -> _Read | None:
        """Wait until a read has ended that is as new as this call, and return it.

        If it takes long, it may be because the account whose turn it takes has used much time. So
        a client of another account begins a further read, and the others wait for both. Returns
        None after `MAX_ROUNDS`.
        """
        joined: list[_Read] = []
        since = monotonic()
        try:
            for _ in range(MAX_ROUNDS):
                read = self._join(key, context, subscription, joined, since)
                if read not in joined:
                    read.members += 1
                    joined.append(read)
                ended = [read.ended for read in joined]
                await asyncio.wait(ended, timeout=MAX_WAIT, return_when=asyncio.FIRST_COMPLETED)
                for read in joined:
                    if read.ended.done():
                        return read
            return None
        finally:
            for read in joined:
                read.members -= 1
                if read.members == 0 and not read.ended.done():
                    self._forget(key, read)
                    read.task.cancel()

    def _join(
        self,
        key: _Key,
        context: Context,
        subscription: Subscription,
        joined: list[_Read],
        since: float,
    ) -> _Read:
        """Return a read that is as new as a call at the time ``since``, or begin one.

        ``joined`` are those for which the client waits already.
        """
        reads = self._reads.get(key)
        if reads is None:
            reads = self._reads[key] = _Reads(context)
        account, current = current_owner().account, reads.current
        if (
            current is not None
            and current not in joined
            and (self._is_new(current) or (current.began_at or 0.0) > since)
        ):
            return current
        if account in [read.account for read in joined]:
            return reads.next or joined[-1]
        if reads.next is None:
            reads.next = read = _Read(account)
            # with the query as it is now: that of the subscription may be made again
            reader = Subscription(subscription.connection, subscription.request, subscription.query)
            # the time counts for the client that was the first to join
            coroutine = self._run(key, reads, read, reader)
            read.task = asyncio.get_running_loop().create_task(coroutine)
        return reads.next

    def _is_new(self, read: _Read) -> bool:
        """Return whether a read that has begun gives what a read that begins now would give."""
        if read.began_at is None or read.is_outdated or not self._collection.durable:
            return False
        if self._collection.serializer is not None:
            return False
        is_recent = monotonic() - read.began_at <= JOIN_SECONDS
        return is_recent and read.position == self._get_position()

    async def _run(self, key: _Key, reads: _Reads, read: _Read, subscription: Subscription) -> None:
        try:
            if reads.current is not None:
                await asyncio.wait({reads.current.ended}, timeout=MAX_TURN)
            reads.current, reads.next = read, None
            reads.running.add(read)
            read.began_at, read.position = monotonic(), self._get_position()
            result = await self._read(read, subscription, key[2])
            if result is None:
                self._note_large(key)
            else:
                pages, is_cut = result
                read.snapshot = SharedSnapshot(pages, is_cut=is_cut)
                _end_older(reads.running, read)
        except Exception as error:
            read.error, read.traceback = error, error.__traceback__
        finally:
            reads.running.discard(read)
            if not read.ended.done():
                read.ended.set_result(None)
            if read.snapshot is None or not self._keep(key, read, read.snapshot.size):
                self._forget(key, read)

    async def _read(self, read: _Read, subscription: Subscription, query: SnapshotQuery) -> Pages:
        """Read the documents as of the position of a read, or of a later one."""

        async def advance() -> Position | None:
            await self._catch_up()
            read.position = self._get_position()
            return read.position

        def read_at(position: Position | None) -> Awaitable[Pages]:
            arguments = (self._collection, subscription, query, MAX_BYTES, position)
            return run_in_threadpool(read_pages, *arguments)

        return (await read_as_of(read_at, read.position, advance))[0]

    def _keep(self, key: _Key, read: _Read, size: int) -> bool:
        """Keep a snapshot until it may not be joined any more; return False if it is not kept."""
        if not self._is_new(read) or self._kept_bytes + size > MAX_KEPT_BYTES:
            return False
        self._kept_bytes += size

        def forget() -> None:
            self._kept_bytes -= size
            self._forget(key, read)

        asyncio.get_running_loop().call_later(JOIN_SECONDS, forget)
        return True

    def _forget(self, key: _Key, read: _Read) -> None:
        reads = self._reads.get(key)
        if reads is None:
            return
        if reads.current is read:
            reads.current = None
        if reads.next is read:
            reads.next = None
        if reads.current is None and reads.next is None:
            del self._reads[key]

    def _note_large(self, key: _Key) -> None:
        if len(self._large) >= MAX_LARGE:
            self._large.clear()
        self._large[key[:3]] = monotonic() + LARGE_SECONDS


def _end_older(running: set[_Read], newer: _Read) -> None:
    """End the reads that began before another one, which has ended, with its result."""
    assert newer.began_at is not None
    for read in running - {newer}:
        if read.began_at is not None and read.began_at <= newer.began_at:
            if not read.ended.done():
                read.snapshot, read.position = newer.snapshot, newer.position
                read.ended.set_result(None)
            read.task.cancel()
