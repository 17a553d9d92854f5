"""The way out of one connection: a bounded queue that never makes anybody else wait.

``push`` is synchronous. While the server takes frames at once nothing is queued and no task is
made: the server's ``send`` coroutine is stepped by hand, and only when it really waits (uvicorn
does when the socket's buffer is full) does a task take over, with the queue behind it.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from typing import Any, Protocol

BATCH = 100  # events of one frame
HIGH_WATER = (
    64 * 1024
)  # bytes in a server's own buffer beyond which it counts as full, as uvicorn's
LOOK = 0.005  # seconds between looks at a full one

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Queued = tuple[str, bool]
"""A frame, and whether it is an event that may be joined with others."""


class Batcher(Protocol):
    """Joins events for clients that take several in one frame."""

    def later(self, writer: Writer) -> None:
        """Have the writer release what it gathered, at the end of this turn of the loop."""

    def joined(self, events: list[str]) -> str:
        """One frame of events that are frames already."""


class Credit:
    """What a client that acks may owe: ``most`` events. Shows what the server's buffers hide."""

    __slots__ = ("_owed", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._owed: deque[str] = deque()

    def owe(self, cursor: str) -> bool:
        """Note an event that was sent; True where that is more than it may owe."""
        self._owed.append(cursor)
        return len(self._owed) > self.most

    def ack(self, cursor: str) -> None:
        """The client took what came up to ``cursor``; one that it does not owe pays nothing."""
        if cursor in self._owed:
            while self._owed.popleft() != cursor:
                pass


class Writer:
    """Sends frames of one connection in order, in bounded memory.

    ``max_bytes`` and ``max_messages`` bound what waits for a client that does not read, ``unsent``
    tells of bytes that wait in the server; beyond these, or beyond its credit, the queue is
    dropped and ``on_overflow`` is called once. With a batcher, events that come in the same turn
    of the loop, or wait together, leave as one frame. Not thread-safe: it belongs to its
    connection's event loop.

    ``direct``: an event may be handed to ``send`` as it is (see ``spread``).
    """

    __slots__ = (
        "_batch",
        "_bytes",
        "_credit",
        "_gathered",
        "_max_bytes",
        "_max_messages",
        "_on_overflow",
        "_queue",
        "_task",
        "_unsent",
        "closed",
        "direct",
        "finished",
        "send",
    )

    def __init__(
        self,
        send: Send,
        *,
        max_bytes: int,
        max_messages: int,
        on_overflow: Callable[[], None],
        unsent: Callable[[], int] | None = None,
    ) -> None:
        self.send = send
        self._unsent = unsent
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._on_overflow = on_overflow
        self._queue: deque[Queued] | None = None
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._gathered: list[str] | None = None
        self._batch: Batcher | None = None
        self._credit: Credit | None = None
        self.closed = False
        self.finished = False
        self.direct = unsent is None

    @property
    def queued_bytes(self) -> int:
        """Length of what waits, in characters (bytes for ASCII)."""
        return self._bytes

    def take_batches(self, batch: Batcher) -> None:
        """From now on events may leave together."""
        self._batch = batch
        self.direct = False

    def ack(self, cursor: str, most: int) -> None:
        """The client took events up to ``cursor``; from the first time on it may owe ``most``."""
        if self._credit is None:
            self._credit = Credit(most)
            self.direct = False
        else:
            self._credit.ack(cursor)

    def push(self, text: str) -> None:
        """Send ``text`` now or queue it. Never waits, never raises; nothing after the end."""
        if self.finished:
            return
        if self._gathered:
            self.release()
        self._put(text)

    def push_event(self, text: str, cursor: str | None = None) -> None:
        """Like ``push``, for an event, which may leave in one frame with others."""
        if self.finished:
            return
        if self._credit is not None and cursor is not None and self._credit.owe(cursor):
            self._overflow()
        elif self._batch is None:
            self._put(text)
        elif self._task is not None:
            self._enqueue(text, is_event=True)
        elif self._gathered is not None:
            self._gathered.append(text)
            if len(self._gathered) >= BATCH:
                self.release()
        else:
            self._gathered = [text]
            self._batch.later(self)

    def finish(self, text: str | None = None) -> None:
        """Take nothing more but a last frame: now with ``text``, or later.

        What is left out from here on is missed, so that nothing which came after it may be sent:
        the client would come back with a cursor from beyond the gap.
        """
        self.release()
        self.finished = True
        self.direct = False
        if text is not None:
            self._put(text)

    def release(self) -> None:
        """Send what was gathered."""
        gathered, self._gathered = self._gathered, None
        if gathered and self._batch is not None:
            self._put(self._batch.joined(gathered))

    def _put(self, text: str) -> None:
        if self.closed:
            return
        if self._task is not None:
            self._enqueue(text)
            return
        started: Any = self.send({"type": "websocket.send", "text": text})
        try:
            waiting = started.send(None)
        except StopIteration:
            if self._unsent is not None and self._unsent() > HIGH_WATER:
                self._wait(self._room())
            return
        except Exception:
            self.lost()
            return
        self.wait_for(started, waiting)

    def lost(self) -> None:
        """The socket is gone; its disconnect event follows."""
        self.closed = True
        self.direct = False
        self._drop()

    def wait_for(self, started: Coroutine[Any, Any, None], waiting: Any) -> None:
        """A coroutine that sends for this writer has yielded ``waiting``: queue what follows."""
        self._wait(_resume(started, waiting))

    def _wait(self, until: Awaitable[None]) -> None:
        self.direct = False
        self._task = asyncio.get_running_loop().create_task(self._drain(until))

    async def _room(self) -> None:
        """Wait until the server's buffer is as good as read, where that can be told."""
        # polled: daphne tells nobody
        while self._unsent is not None and not self.closed and self._unsent() > HIGH_WATER:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)

    def _enqueue(self, text: str, *, is_event: bool = False) -> None:
        if self.closed:
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append((text, is_event))
        self._bytes += len(text)
        if self._bytes > self._max_bytes or len(self._queue) > self._max_messages:
            self._overflow()

    def _overflow(self) -> None:
        if not self.closed:
            self.lost()
            self._on_overflow()

    def _drop(self) -> None:
        self._gathered = self._queue = None
        self._bytes = 0

    def _next(self, queue: deque[Queued]) -> str:
        """What is to be sent next: events that wait together, as one."""
        text, is_event = queue.popleft()
        self._bytes -= len(text)
        if not is_event or self._batch is None:
            return text
        events = [text]
        while queue and queue[0][1] and len(events) < BATCH:
            text, _ = queue.popleft()
            self._bytes -= len(text)
            events.append(text)
        return self._batch.joined(events)

    async def _drain(self, until: Awaitable[None]) -> None:
        try:
            await until
            while self._queue:
                await self.send({"type": "websocket.send", "text": self._next(self._queue)})
                await self._room()
        except Exception:
            self.lost()
        finally:
            self._task = None
            if not (self.closed or self.finished):
                self.direct = (self._batch, self._credit, self._unsent) == (None, None, None)

    async def drained(self) -> None:
        """Wait until nothing waits: for those who have much to send and can pause."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def flush(self, timeout: float) -> bool:
        """Wait until all is sent, ``timeout`` seconds at most. False: it was not."""
        self.release()
        if self._task is None:
            return True
        done, _ = await asyncio.wait({self._task}, timeout=timeout)
        return bool(done)

    async def stop(self) -> None:
        """Send nothing more; give up what waits."""
        self.lost()
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=1)


@types.coroutine
def _resume(started: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, Any, None]:
    """Go on with a coroutine that was stepped once and yielded ``waiting``, inside a task."""
    while True:
        failure: BaseException | None = None
        result: Any = None
        try:
            result = yield waiting
        except BaseException as error:
            failure = error
        try:
            waiting = started.send(result) if failure is None else started.throw(failure)
        except StopIteration:
            return
