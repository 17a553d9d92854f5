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
from typing import Any

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


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


class Writer:
    """Sends frames of one connection in order, in bounded memory.

    ``max_bytes`` and ``max_messages`` bound what waits for a client that does not read; beyond
    either, the queue is dropped and ``on_overflow`` is called once. Not thread-safe: it belongs
    to its connection's event loop.
    """

    __slots__ = (
        "_bytes",
        "_max_bytes",
        "_max_messages",
        "_on_overflow",
        "_queue",
        "_send",
        "_task",
        "closed",
    )

    def __init__(
        self, send: Send, *, max_bytes: int, max_messages: int, on_overflow: Callable[[], None]
    ) -> None:
        self._send = send
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._on_overflow = on_overflow
        self._queue: deque[str] = deque()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def queued_bytes(self) -> int:
        """Length of what waits, in characters (bytes for ASCII)."""
        return self._bytes

    def push(self, text: str) -> None:
        """Send ``text`` now or queue it. Never waits, never raises; nothing after a close."""
        if self.closed:
            return
        if self._task is not None:
            self._enqueue(text)
            return
        started: Any = self._send({"type": "websocket.send", "text": text})
        try:
            waiting = started.send(None)
        except StopIteration:
            return
        except Exception:
            self.closed = True  # the socket is gone; its disconnect event follows
            return
        self._task = asyncio.get_running_loop().create_task(self._drain(started, waiting))

    def _enqueue(self, text: str) -> None:
        self._queue.append(text)
        self._bytes += len(text)
        if self._bytes > self._max_bytes or len(self._queue) > self._max_messages:
            self.closed = True
            self._drop()
            self._on_overflow()

    def _drop(self) -> None:
        self._queue.clear()
        self._bytes = 0

    async def _drain(self, started: Coroutine[Any, Any, None], waiting: Any) -> None:
        try:
            await _resume(started, waiting)
            while self._queue:
                text = self._queue.popleft()
                self._bytes -= len(text)
                await self._send({"type": "websocket.send", "text": text})
        except Exception:
            self.closed = True
            self._drop()
        finally:
            self._task = None

    async def drained(self) -> None:
        """Wait until nothing waits: for those who have much to send and can pause."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def flush(self, timeout: float) -> bool:
        """Wait until all is sent, ``timeout`` seconds at most. False: it was not."""
        if self._task is None:
            return True
        done, _ = await asyncio.wait({self._task}, timeout=timeout)
        return bool(done)

    async def stop(self) -> None:
        """Send nothing more; give up what waits."""
        self.closed = True
        self._drop()
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=1)
