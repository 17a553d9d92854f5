"""The writer of a connection, which sends frames in order, with a bounded queue.

Its method ``push`` is synchronous. The writer runs the coroutine of the ASGI server's ``send``
itself, without a task. If ``send`` waits, which it does in uvicorn if the socket's buffer is full,
a task continues the coroutine, and later frames are queued.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from sys import getsizeof
from typing import Any, Protocol

from .ack_window import AckWindow
from .started_coroutine import resume
from .waiting_frames import WaitingFrame, pack, size_of, unpack

# highest number of events in one `events` frame
MAX_BATCH_EVENTS = 100
# highest number of characters in one `events` frame, unless it has a single event; in UTF-8, a
# character has up to 4 bytes, so that the frame is smaller than `MAX_FRAME_BYTES`
MAX_BATCH_LENGTH = 127 * 1024
# characters of an event up to which it is not counted, since `MAX_BATCH_EVENTS` of them are short
SMALL_EVENT_LENGTH = 640
# highest number of characters of the other events
MAX_LARGE_LENGTH = MAX_BATCH_LENGTH - MAX_BATCH_EVENTS * (SMALL_EVENT_LENGTH + 1)
# seconds between two checks of whether the server's buffer is still full
BUFFER_POLL_INTERVAL = 0.005

# the ASGI server's send callable
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# a frame, and whether it is an event that may be joined with others
QueueEntry = tuple[WaitingFrame, bool]


class Batcher(Protocol):
    """An object that joins events into one frame, which `fan_out.FrameBatcher` implements."""

    def schedule(self, writer: Writer) -> None:
        """Call ``writer.flush_batch()`` at the end of this iteration of the event loop."""

    def join(self, events: list[str]) -> str:
        """Return one frame that contains these encoded events."""


class Writer:
    """Sends the frames of one connection, and counts what waits for it.

    Frames that wait are counted here wherever they are: in the queue, in buffers (`reserve`), or
    in the page of a catch-up (`holding`). If events exceed a limit, because the client reads too
    slowly, the queue is emptied and the connection must be closed. A page needs no limit: only one
    catch-up of a connection at a time holds one (`page_turn`), and its size is bounded. Not
    thread-safe: a writer belongs to the event loop of its connection.
    """

    __slots__ = (
        "_ack_window",
        "_batcher",
        "_buffered_frames",
        "_bytes",
        "_held_bytes",
        "_is_buffer_full",
        "_large_length",
        "_max_bytes",
        "_max_messages",
        "_on_failure",
        "_on_overflow",
        "_page_turn",
        "_pending_events",
        "_queue",
        "_snapshot_turn",
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
        on_failure: Callable[[Exception], None] = lambda error: None,
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
        # limit of the queue and the buffers in bytes
        self._max_bytes = max_bytes
        # limit of the queue and the buffers in frames
        self._max_messages = max_messages
        # called once if a limit is exceeded
        self._on_overflow = on_overflow
        # called with the exception of a `send`, which may mean that the socket is closed
        self._on_failure = on_failure
        # frames that wait for a `send`; None until first needed
        self._queue: deque[QueueEntry] | None = None
        # bytes in the queue and in buffers
        self._bytes = 0
        # frames in buffers
        self._buffered_frames = 0
        # bytes in the page of a catch-up
        self._held_bytes = 0
        # the locks of `page_turn` and `snapshot_turn`; None until first needed
        self._page_turn: asyncio.Lock | None = None
        self._snapshot_turn: asyncio.Lock | None = None
        # the task that sends the queue, if there is one
        self._task: asyncio.Task[None] | None = None
        # events of this iteration of the event loop, which will be one frame
        self._pending_events: list[str] | None = None
        # characters of the first and of the large ones
        self._large_length = 0
        # joins events into frames; set if the client accepts that
        self._batcher: Batcher | None = None
        # set by the client's first ack
        self._ack_window: AckWindow | None = None

    # what waits

    @property
    def waiting_bytes(self) -> int:
        """Bytes of memory of everything that waits for this connection."""
        return self._bytes + self._held_bytes + size_of(self._pending_events or ())

    @property
    def waiting_frames(self) -> int:
        """Number of frames that wait in the queue or in buffers."""
        return self._buffered_frames + len(self._queue or ())

    def reserve(self, frames: int, size: int) -> None:
        """Count frames that wait outside of the queue, as if they were in it."""
        if not self.closed:
            self._buffered_frames += frames
            self._bytes += size
            self._check_limits()

    def release(self, frames: int, size: int) -> None:
        """Count no longer what was reserved."""
        if not self.closed:
            self._buffered_frames -= frames
            self._bytes -= size

    @contextmanager
    def holding(self, size: int = 0) -> Iterator[Callable[[int], None]]:
        """Count bytes of a page during the block, without a limit; the result changes them."""
        counted = 0

        def hold(size: int) -> None:
            nonlocal counted
            self._held_bytes += size - counted
            counted = size

        hold(size)
        try:
            yield hold
        finally:
            hold(0)

    @property
    def page_turn(self) -> asyncio.Lock:
        """The lock under which a catch-up reads a page and sends it. The first waiting is next."""
        if self._page_turn is None:
            self._page_turn = asyncio.Lock()
        return self._page_turn

    @property
    def snapshot_turn(self) -> asyncio.Lock:
        """The lock under which a snapshot holds the keys of its documents.

        It is taken before `page_turn`, so that replays continue between the pages of a snapshot.
        """
        if self._snapshot_turn is None:
            self._snapshot_turn = asyncio.Lock()
        return self._snapshot_turn

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
        pending = self._pending_events
        if pending is None and self.finished:
            return
        window = self._ack_window
        if window is not None and cursor is not None and window.record_sent(cursor):
            self._overflow()
        elif pending is not None:  # then there is a batcher, and no task
            if len(text) > SMALL_EVENT_LENGTH and not self._count_large(text):
                self.flush_batch()
                self.push_event(text)  # its cursor is recorded already
                return
            pending.append(text)
            if len(pending) >= MAX_BATCH_EVENTS:
                self.flush_batch()
        elif self._batcher is None:
            self._send_or_queue(text)
        elif self._task is not None:
            self._enqueue(text, is_event=True)
        else:
            self._pending_events = [text]
            if len(text) > SMALL_EVENT_LENGTH:
                self._large_length = len(text)
            self._batcher.schedule(self)

    def _count_large(self, text: str) -> bool:
        """Count the characters of a large event; return False if the batch would be too long."""
        length = self._large_length + len(text)
        if length > MAX_LARGE_LENGTH:
            return False
        self._large_length = length
        return True

    def flush_batch(self) -> None:
        """Send the events of this iteration of the event loop in one frame."""
        events, self._pending_events = self._pending_events, None
        self._large_length = 0
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
        sending: Any = None
        try:
            sending = self.send({"type": "websocket.send", "text": text})
            yielded = sending.send(None)
        except StopIteration:
            if self._is_buffer_full is not None and self._is_buffer_full():
                self._start_draining(self._wait_writable())
        except Exception as error:
            if sending is None or hasattr(sending, "send"):
                self.fail(error)
            else:
                # an awaitable that is not a coroutine, which some servers return
                self._start_draining(sending)
        else:
            self.resume_in_task(sending, yielded)

    def fail(self, error: Exception) -> None:
        """Send nothing more, because a ``send`` has failed."""
        if not self.closed:
            self.mark_lost()
            self._on_failure(error)

    def mark_lost(self) -> None:
        """Send nothing more, because the socket is closed. Its disconnect event will follow."""
        self.closed = True
        self.can_send_inline = False
        self._drop()

    def resume_in_task(self, sending: Coroutine[Any, Any, None], yielded: Any) -> None:
        """Let a task continue a ``send`` that waits; queue later frames until it has ended."""
        self._start_draining(resume(sending, yielded))

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
        frame = pack(text)
        self._queue.append((frame, is_event))
        self._bytes += getsizeof(frame)
        self._check_limits()

    def _check_limits(self) -> None:
        if self._bytes > self._max_bytes or self.waiting_frames > self._max_messages:
            self._overflow()

    def _overflow(self) -> None:
        if not self.closed:
            self.mark_lost()
            self._on_overflow()

    def _drop(self) -> None:
        self._pending_events = self._queue = None
        self._bytes = self._buffered_frames = 0

    def _next_frame(self, queue: deque[QueueEntry]) -> str:
        """Remove and return the next frame. With a batcher, consecutive events become one."""
        frame, is_event = queue.popleft()
        self._bytes -= getsizeof(frame)
        if not is_event or self._batcher is None:
            return unpack(frame)
        events, length = [unpack(frame)], len(frame)
        while queue and queue[0][1] and len(events) < MAX_BATCH_EVENTS:
            length += len(queue[0][0])
            if length > MAX_BATCH_LENGTH:
                break
            frame, _ = queue.popleft()
            self._bytes -= getsizeof(frame)
            events.append(unpack(frame))
        return self._batcher.join(events)

    async def _drain(self, first: Awaitable[None]) -> None:
        try:
            await first
            while self._queue:
                await self.send({"type": "websocket.send", "text": self._next_frame(self._queue)})
                await self._wait_writable()
        except Exception as error:
            self.fail(error)
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
