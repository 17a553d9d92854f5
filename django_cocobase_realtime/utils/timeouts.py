"""Many waits of the same length: one timer for all of them, instead of one each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class _Wait:
    __slots__ = ("deadline", "expired", "task")

    def __init__(self, task: asyncio.Task[object], deadline: float) -> None:
        self.task: asyncio.Task[object] | None = task
        self.deadline = deadline
        self.expired = False


class Deadlines:
    """Waits of one event loop. Those of one length end in the order in which they began."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waits: dict[float, deque[_Wait]] = {}

    @classmethod
    def current(cls) -> Deadlines:
        """Those of the running loop; who waits under another loop's keeps its own."""
        global _latest
        loop = asyncio.get_running_loop()
        if _latest is None or _latest._loop is not loop:
            _latest = cls(loop)
        return _latest

    async def wait(self, awaitable: Awaitable[T], seconds: float) -> T:
        """The awaitable's result. Raises ``TimeoutError`` after ``seconds``."""
        task = asyncio.current_task()
        assert task is not None
        wait = _Wait(task, self._loop.time() + seconds)
        waits = self._waits.get(seconds)
        if waits is None:
            waits = self._waits[seconds] = deque()
            self._loop.call_at(wait.deadline, self._look, seconds)
        waits.append(wait)
        try:
            return await awaitable
        except asyncio.CancelledError:
            if wait.expired and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            wait.task = None

    def _look(self, seconds: float) -> None:
        waits, now = self._waits[seconds], self._loop.time()
        while waits and (waits[0].task is None or waits[0].deadline <= now):
            wait = waits.popleft()
            if wait.task is not None:
                wait.expired = True
                wait.task.cancel()
        if waits:
            self._loop.call_at(waits[0].deadline, self._look, seconds)
        else:
            del self._waits[seconds]


_latest: Deadlines | None = None
