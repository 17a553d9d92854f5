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

MAX_BATCH_EVENTS = 100  # events of one frame
HIGH_WATER_BYTES = (
    64 * 1024
)  # bytes in a server's own buffer beyond which it counts as full, as uvicorn's
BUFFER_POLL_INTERVAL = 0.005  # seconds between looks at a full one

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
QueueEntry = tuple[str, bool]
"""A frame, and whether it is an event that may be joined with others."""


class Batcher(Protocol):
    """Joins events for clients that take several in one frame."""

    def schedule(self, writer: Writer) -> None:
        """Have the writer release what it gathered, at the end of this turn of the loop."""

    def join(self, events: list[str]) -> str:
        """One frame of events that are frames already."""


class AckWindow:
    """What a client that acks may owe: ``most`` events. Shows what the server's buffers hide."""

    __slots__ = ("_in_flight", "limit")

    def __init__(self, most: int) -> None:
        self.limit = most
        self._in_flight: deque[str] = deque()

    def record_sent(self, cursor: str) -> bool:
        """Note an event that was sent; True where that is more than it may owe."""
        self._in_flight.append(cursor)
        return len(self._in_flight) > self.limit

    def ack(self, cursor: str) -> None:
        """The client took what came up to ``cursor``; one that it does not owe pays nothing."""
        if cursor in self._in_flight:
            while self._in_flight.popleft() != cursor:
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
        "_ack_window",
        "_batcher",
        "_bytes",
        "_get_buffer_size",
        "_max_bytes",
        "_max_messages",
        "_on_overflow",
        "_pending_events",
        "_queue",
        "_task",
        "can_send_inline",
        "closed",
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
        get_buffer_size: Callable[[], int] | None = None,
    ) -> None:
        self.send = send
        self._get_buffer_size = get_buffer_size
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._on_overflow = on_overflow
        self._queue: deque[QueueEntry] | None = None
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._pending_events: list[str] | None = None
        self._batcher: Batcher | None = None
        self._ack_window: AckWindow | None = None
        self.closed = False
        self.finished = False
        self.can_send_inline = get_buffer_size is None

    @property
    def queued_bytes(self) -> int:
        """Length of what waits, in characters (bytes for ASCII)."""
        return self._bytes

    def enable_batching(self, batch: Batcher) -> None:
        """From now on events may leave together."""
        self._batcher = batch
        self.can_send_inline = False

    def ack(self, cursor: str, most: int) -> None:
        """The client took events up to ``cursor``; from the first time on it may owe ``most``."""
        if self._ack_window is None:
            self._ack_window = AckWindow(most)
            self.can_send_inline = False
        else:
            self._ack_window.ack(cursor)

    def push(self, text: str) -> None:
        """Send ``text`` now or queue it. Never waits, never raises; nothing after the end."""
        if self.finished:
            return
        if self._pending_events:
            self.flush_batch()
        self._send_or_queue(text)

    def push_event(self, text: str, cursor: str | None = None) -> None:
        """Like ``push``, for an event, which may leave in one frame with others."""
        if self.finished:
            return
        if (
            self._ack_window is not None
            and cursor is not None
            and self._ack_window.record_sent(cursor)
        ):
            self._overflow()
        elif self._batcher is None:
            self._send_or_queue(text)
        elif self._task is not None:
            self._enqueue(text, is_event=True)
        elif self._pending_events is not None:
            self._pending_events.append(text)
            if len(self._pending_events) >= MAX_BATCH_EVENTS:
                self.flush_batch()
        else:
            self._pending_events = [text]
            self._batcher.schedule(self)

    def finish(self, text: str | None = None) -> None:
        """Take nothing more but a last frame: now with ``text``, or later.

        What is left out from here on is missed, so that nothing which came after it may be sent:
        the client would come back with a cursor from beyond the gap.
        """
        self.flush_batch()
        self.finished = True
        self.can_send_inline = False
        if text is not None:
            self._send_or_queue(text)

    def flush_batch(self) -> None:
        """Send what was gathered."""
        gathered, self._pending_events = self._pending_events, None
        if gathered and self._batcher is not None:
            self._send_or_queue(self._batcher.join(gathered))

    def _send_or_queue(self, text: str) -> None:
        if self.closed:
            return
        if self._task is not None:
            self._enqueue(text)
            return
        started: Any = self.send({"type": "websocket.send", "text": text})
        try:
            waiting = started.send(None)
        except StopIteration:
            if self._get_buffer_size is not None and self._get_buffer_size() > HIGH_WATER_BYTES:
                self._start_draining(self._wait_writable())
            return
        except Exception:
            self.mark_lost()
            return
        self.resume_in_task(started, waiting)

    def mark_lost(self) -> None:
        """The socket is gone; its disconnect event follows."""
        self.closed = True
        self.can_send_inline = False
        self._drop()

    def resume_in_task(self, started: Coroutine[Any, Any, None], waiting: Any) -> None:
        """A coroutine that sends for this writer has yielded ``waiting``: queue what follows."""
        self._start_draining(_resume(started, waiting))

    def _start_draining(self, until: Awaitable[None]) -> None:
        self.can_send_inline = False
        self._task = asyncio.get_running_loop().create_task(self._drain(until))

    async def _wait_writable(self) -> None:
        """Wait until the server's buffer is as good as read, where that can be told."""
        # polled: daphne tells nobody
        while (  # noqa: ASYNC110
            self._get_buffer_size is not None
            and not self.closed
            and self._get_buffer_size() > HIGH_WATER_BYTES
        ):
            await asyncio.sleep(BUFFER_POLL_INTERVAL)

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
            self.mark_lost()
            self._on_overflow()

    def _drop(self) -> None:
        self._pending_events = self._queue = None
        self._bytes = 0

    def _next_frame(self, queue: deque[QueueEntry]) -> str:
        """What is to be sent next: events that wait together, as one."""
        text, is_event = queue.popleft()
        self._bytes -= len(text)
        if not is_event or self._batcher is None:
            return text
        events = [text]
        while queue and queue[0][1] and len(events) < MAX_BATCH_EVENTS:
            text, _ = queue.popleft()
            self._bytes -= len(text)
            events.append(text)
        return self._batcher.join(events)

    async def _drain(self, until: Awaitable[None]) -> None:
        try:
            await until
            while self._queue:
                await self.send({"type": "websocket.send", "text": self._next_frame(self._queue)})
                await self._wait_writable()
        except Exception:
            self.mark_lost()
        finally:
            self._task = None
            if not (self.closed or self.finished):
                self.can_send_inline = (self._batcher, self._ack_window, self._get_buffer_size) == (
                    None,
                    None,
                    None,
                )

    async def wait_drained(self) -> None:
        """Wait until nothing waits: for those who have much to send and can pause."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def flush(self, timeout: float) -> bool:
        """Wait until all is sent, ``timeout`` seconds at most. False: it was not."""
        self.flush_batch()
        if self._task is None:
            return True
        done, _ = await asyncio.wait({self._task}, timeout=timeout)
        return bool(done)

    async def stop(self) -> None:
        """Send nothing more; give up what waits."""
        self.mark_lost()
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
