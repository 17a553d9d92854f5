"""The writer of a connection, which sends frames in order, with a bounded queue.

Its method ``push`` is synchronous. The writer runs the coroutine of the ASGI server's ``send``
itself, without a task. If ``send`` waits, which it does in uvicorn if the socket's buffer is full,
a task continues the coroutine, and later frames are queued.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from typing import Any, Protocol

# highest number of events in one `events` frame
MAX_BATCH_EVENTS = 100
# seconds between two checks of whether the server's buffer is still full
BUFFER_POLL_INTERVAL = 0.005

# the ASGI server's send callable
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# a frame's text, and whether it is an event that may be joined with others
QueueEntry = tuple[str, bool]


class Batcher(Protocol):
    """An object that joins events into one frame, which `fan_out.FrameBatcher` implements."""

    def schedule(self, writer: Writer) -> None:
        """Call ``writer.flush_batch()`` at the end of this iteration of the event loop."""

    def join(self, events: list[str]) -> str:
        """Return one frame that contains these encoded events."""


class AckWindow:
    """The events that a client has not acknowledged yet, of which it may have a limited number.

    By acks the server notices a slow client even if the frames wait in buffers of the network.
    """

    __slots__ = ("_in_flight", "limit")

    def __init__(self, limit: int) -> None:
        # number of events that may be unacknowledged
        self.limit = limit
        # cursors of the unacknowledged events, oldest first
        self._in_flight: deque[str] = deque()

    def record_sent(self, cursor: str) -> bool:
        """Add a sent event; return True if more than ``limit`` are now unacknowledged."""
        self._in_flight.append(cursor)
        return len(self._in_flight) > self.limit

    def ack(self, cursor: str) -> None:
        """Acknowledge all events up to ``cursor``; ignore the cursor of any other event."""
        if cursor in self._in_flight:
            while self._in_flight.popleft() != cursor:
                pass


class Writer:
    """Sends the frames of one connection.

    If the queue or the ack window exceeds its limit, because the client reads too slowly, the
    queue is emptied and the connection must be closed. Not thread-safe: a writer belongs to the
    event loop of its connection.
    """

    __slots__ = (
        "_ack_window",
        "_batcher",
        "_bytes",
        "_is_buffer_full",
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
        is_buffer_full: Callable[[], bool] | None = None,
    ) -> None:
        # the ASGI server's send callable
        self.send = send
        # whether nothing more can be sent, because the socket is closed or the queue overflowed
        self.closed = False
        # whether frames are dropped, after `finish`
        self.finished = False
        # whether `fan_out` may call `send` directly instead of `push_event`
        self.can_send_inline = is_buffer_full is None
        # returns whether the server's own buffer is full; None for a server whose `send` waits
        # for its buffer (see `transport.daphne`)
        self._is_buffer_full = is_buffer_full
        # limit of the queue in characters
        self._max_bytes = max_bytes
        # limit of the queue in frames
        self._max_messages = max_messages
        # called once if a limit is exceeded
        self._on_overflow = on_overflow
        # frames that wait for a `send`; None until first needed
        self._queue: deque[QueueEntry] | None = None
        # characters in the queue
        self._bytes = 0
        # the task that sends the queue, if there is one
        self._task: asyncio.Task[None] | None = None
        # events of this iteration of the event loop, which will be one frame
        self._pending_events: list[str] | None = None
        # joins events into frames; set if the client accepts that
        self._batcher: Batcher | None = None
        # set by the client's first ack
        self._ack_window: AckWindow | None = None

    @property
    def queued_bytes(self) -> int:
        """Length of the queue in characters, which for ASCII is the length in bytes."""
        return self._bytes

    def enable_batching(self, batcher: Batcher) -> None:
        """Join several events into one frame from now on."""
        self._batcher = batcher
        self.can_send_inline = False

    def ack(self, cursor: str, limit: int) -> None:
        """Handle an ack of the client. The first one creates the ack window, with this limit."""
        if self._ack_window is None:
            self._ack_window = AckWindow(limit)
            self.can_send_inline = False
        else:
            self._ack_window.ack(cursor)

    # accepting frames

    def push(self, text: str) -> None:
        """Send a frame, or queue it. Does not wait and never raises an exception.

        After `finish`, the frame is dropped.
        """
        if self.finished:
            return
        if self._pending_events:
            self.flush_batch()
        self._send_or_queue(text)

    def push_event(self, text: str, cursor: str | None = None) -> None:
        """Send or queue an event like `push`, possibly in one frame with other events."""
        if self.finished:
            return
        window = self._ack_window
        if window is not None and cursor is not None and window.record_sent(cursor):
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

    def flush_batch(self) -> None:
        """Send the events of this iteration of the event loop in one frame."""
        events, self._pending_events = self._pending_events, None
        if events and self._batcher is not None:
            self._send_or_queue(self._batcher.join(events))

    def finish(self, text: str | None = None) -> None:
        """Drop all frames from now on, after sending ``text`` as the last one if given.

        If one of several later events were sent, the client would resume after it, and would miss
        those before it that were dropped.
        """
        self.flush_batch()
        self.finished = True
        self.can_send_inline = False
        if text is not None:
            self._send_or_queue(text)

    # sending

    def _send_or_queue(self, text: str) -> None:
        if self.closed:
            return
        if self._task is not None:
            self._enqueue(text)
            return
        sending: Any = self.send({"type": "websocket.send", "text": text})
        try:
            yielded = sending.send(None)
        except StopIteration:
            if self._is_buffer_full is not None and self._is_buffer_full():
                self._start_draining(self._wait_writable())
            return
        except Exception:
            self.mark_lost()
            return
        self.resume_in_task(sending, yielded)

    def mark_lost(self) -> None:
        """Send nothing more, because the socket is closed. Its disconnect event will follow."""
        self.closed = True
        self.can_send_inline = False
        self._drop()

    def resume_in_task(self, sending: Coroutine[Any, Any, None], yielded: Any) -> None:
        """Let a task continue a ``send`` that waits; queue later frames until it has ended."""
        self._start_draining(_resume(sending, yielded))

    def _start_draining(self, first: Awaitable[None]) -> None:
        self.can_send_inline = False
        self._task = asyncio.get_running_loop().create_task(self._drain(first))

    async def _wait_writable(self) -> None:
        """Wait until the server's buffer is no longer full, if that is known."""
        # polled, because daphne offers no callback
        while (  # noqa: ASYNC110
            self._is_buffer_full is not None and not self.closed and self._is_buffer_full()
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
        """Remove and return the next frame. With a batcher, consecutive events become one."""
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

    async def _drain(self, first: Awaitable[None]) -> None:
        try:
            await first
            while self._queue:
                await self.send({"type": "websocket.send", "text": self._next_frame(self._queue)})
                await self._wait_writable()
        except Exception:
            self.mark_lost()
        finally:
            self._task = None
            if not (self.closed or self.finished):
                self.can_send_inline = (
                    self._batcher is None
                    and self._ack_window is None
                    and self._is_buffer_full is None
                )

    # waiting for the queue

    async def wait_drained(self) -> None:
        """Wait until the queue is empty. Called before each of many frames that need not hurry."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def flush(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until all frames are sent; return whether they are."""
        self.flush_batch()
        if self._task is None:
            return True
        done, _ = await asyncio.wait({self._task}, timeout=timeout)
        return bool(done)

    async def stop(self) -> None:
        """Empty the queue and send nothing more."""
        self.mark_lost()
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=1)


@types.coroutine
def _resume(sending: Coroutine[Any, Any, None], yielded: Any) -> Generator[Any, Any, None]:
    """Continue a coroutine that was started with ``send(None)`` and has yielded ``yielded``."""
    while True:
        failure: BaseException | None = None
        result: Any = None
        try:
            result = yield yielded
        except BaseException as error:
            failure = error
        try:
            yielded = sending.send(result) if failure is None else sending.throw(failure)
        except StopIteration:
            return
