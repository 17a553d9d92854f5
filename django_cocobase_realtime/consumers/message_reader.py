"""Reading the messages of the ASGI server, also while a request is being handled.

While a request waits for long, for example for the database, a bounded number of further messages
is read. If one of them says that the client has disconnected, the request is cancelled, and so is
each of the remaining ones when it waits: a broadcast is still sent, for example. Requests that do
not wait for long, which are most of them, cost no task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from ..transport.daphne import get_pausable_transport
from ..types import Message, Receive, Send

# messages that are read ahead at most
MAX_MESSAGES = 128
# bytes of these messages; the last one may exceed it
MAX_BYTES = 64 * 1024

# seconds that a request waits until further messages are read; not with daphne, which queues them
# without a limit
READ_AHEAD_DELAY = 0.05
# seconds between two checks of whether a request has ended
IDLE_POLL_INTERVAL = 0.01


class MessageReader:
    """Reads the messages of one connection, in the task that was running when it was created.

    ``on_message`` is called for each message when it is read.
    """

    __slots__ = (
        "_bytes",
        "_can_cancel",
        "_error",
        "_has_disconnected",
        "_is_cancelled",
        "_is_handling",
        "_is_paused",
        "_is_stopped",
        "_main",
        "_on_message",
        "_receive",
        "_start_handle",
        "_task",
        "_transport",
        "_unread",
    )

    def __init__(self, receive: Receive, send: Send, on_message: Callable[[], None]) -> None:
        self._receive = receive
        self._on_message = on_message
        # the task that handles the requests
        self._main = asyncio.current_task()
        # messages that were read ahead; None if there are none, to save memory
        self._unread: deque[Message] | None = None
        # bytes of these messages
        self._bytes = 0
        # whether a request is being handled, so that it can be cancelled
        self._is_handling = False
        # whether the request was cancelled by `cancel_request`
        self._is_cancelled = False
        # calls `_start`, or `_read`
        self._start_handle: asyncio.Handle | None = None
        # the task that reads ahead
        self._task: asyncio.Task[None] | None = None
        # whether this task waits for a message in a way that may be cancelled without a loss
        self._can_cancel = False
        # whether the client has disconnected, after the messages that were read ahead
        self._has_disconnected = False
        # what the server raised instead of returning a message
        self._error: Exception | None = None
        # daphne's transport, which must be paused, because daphne queues messages without a limit
        self._transport = get_pausable_transport(send)
        self._is_paused = False
        # whether `stop_reading` was called
        self._is_stopped = False

    async def next(self) -> Message:
        """Return the next message."""
        while not self._unread and self._task is not None:
            await asyncio.wait({self._task})
            self._task = None
        if self._unread:
            message = self._unread.popleft()
            self._bytes -= _size(message)
            self._unread = self._unread or None
            return message
        if self._error is not None:
            raise self._error
        if not self._is_paused:
            return await self._receive()
        # read from the socket again only if all messages that the server has queued are handled
        handle = asyncio.get_running_loop().call_soon(self._resume)
        try:
            return await self._receive()
        finally:
            handle.cancel()

    async def handle(self, request: Coroutine[Any, Any, None]) -> None:
        """Handle a request; if the client disconnects meanwhile, cancel it and return."""
        # in the next iteration of the event loop, because most requests have ended by then
        self._start_handle = asyncio.get_running_loop().call_soon(self._start)
        self._is_handling = True
        try:
            await request
        except asyncio.CancelledError:
            if not self._is_cancelled or (self._main is not None and self._main.uncancel() > 0):
                raise
        finally:
            self._is_handling = self._is_cancelled = False
            self._start_handle.cancel()
            self._start_handle = None
            if self._task is not None:
                await self._stop()

    def cancel_request(self) -> None:
        """Cancel the request that is being handled, if it waits.

        Does nothing if the request itself calls this: it is not interrupted, because it might not
        wait again.
        """
        main = self._main
        if not self._is_handling or self._is_cancelled or main is None:
            return
        if main is not asyncio.current_task():
            self._is_cancelled = True
            main.cancel()

    async def call_when_idle(self, function: Callable[[], None], timeout: float) -> None:
        """Call a function when no request is being handled, or after ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while self._is_handling and loop.time() < deadline:  # noqa: ASYNC110 - rarely waits
            await asyncio.sleep(IDLE_POLL_INTERVAL)
        function()

    def stop_reading(self) -> None:
        """Let daphne read nothing more from the socket, because the client sends too much.

        It would otherwise parse all that the client sends while the connection is being closed.
        """
        self._pause()
        self._is_stopped = True

    # reading ahead

    @property
    def _is_full(self) -> bool:
        return len(self._unread or ()) >= MAX_MESSAGES or self._bytes >= MAX_BYTES

    def _start(self) -> None:
        if self._has_disconnected:
            self.cancel_request()
        elif self._is_full:
            self._pause()
        elif self._transport is not None:
            self._read()
        else:
            loop = asyncio.get_running_loop()
            self._start_handle = loop.call_later(READ_AHEAD_DELAY, self._read)

    def _read(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._read_ahead())

    async def _read_ahead(self) -> None:
        try:
            while self._is_handling and not self._is_full:
                receiving = self._receive()
                # the servers' coroutines wait for a queue; a future of another kind may be lost
                self._can_cancel = asyncio.iscoroutine(receiving)
                message = await receiving
                if self._unread is None:
                    self._unread = deque()
                self._unread.append(message)
                self._bytes += _size(message)
                self._on_message()
                if message["type"] == "websocket.disconnect":
                    self._has_disconnected = True
                    self.cancel_request()
                    return
        except Exception as error:
            self._error = error
            return
        if self._is_full:
            self._pause()

    async def _stop(self) -> None:
        task = self._task
        if task is None:
            return
        if not task.done():
            if not self._can_cancel:
                return  # it ends after the next message, for which `next` waits
            task.cancel()
            await asyncio.wait({task})
        self._task = None

    def _pause(self) -> None:
        if self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pauseProducing()

    def _resume(self) -> None:
        if self._transport is not None and self._is_paused and not self._is_stopped:
            self._is_paused = False
            self._transport.resumeProducing()


def _size(message: Message) -> int:
    """Return about how many bytes a message has."""
    return len(message.get("text") or message.get("bytes") or "")
