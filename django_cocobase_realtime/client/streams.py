"""What programs wait on: something that settles once, and streams with any number of readers."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from .errors import RealtimeError

T = TypeVar("T")


class Settled:
    """Done, failed, or not yet. May be waited for many times, and by nobody.

    ``before`` is what it takes the place of, which settles with it.
    """

    def __init__(self, before: Settled | None = None) -> None:
        self._event = asyncio.Event()
        self._error: RealtimeError | None = None
        self._before = before

    def done(self) -> None:
        """It has come about. What failed stays failed."""
        self._event.set()
        before, self._before = self._before, None
        if before is not None:
            before.done()

    def fail(self, error: RealtimeError) -> None:
        """It will not come about; without effect where it already has."""
        if not self._event.is_set():
            self._error = error
            self._event.set()
        before, self._before = self._before, None
        if before is not None:
            before.fail(error)

    async def wait(self) -> None:
        """Until it settles. Raises the error that it failed with."""
        await self._event.wait()
        if self._error is not None:
            raise self._error


class Queue(Generic[T]):
    """Items for one reader, then an end, maybe with an error. ``drained`` is called when empty."""

    def __init__(self, drained: Callable[[], None] | None = None) -> None:
        self._items: deque[T] = deque()
        self._filled = asyncio.Event()
        self._over = False
        self._error: RealtimeError | None = None
        self._drained = drained

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Append; after the end, nothing."""
        if not self._over:
            self._items.append(item)
            self._filled.set()

    def end(self, error: RealtimeError | None = None) -> None:
        """No more will come: whoever reads gets what is left, then the error or the end."""
        if not self._over:
            self._over, self._error = True, error
            self._filled.set()

    async def get(self) -> T:
        """The next item. Raises StopAsyncIteration at the end, or the error."""
        while not self._items:
            if self._over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        item = self._items.popleft()
        if not self._items and self._drained is not None:
            self._drained()
        return item


class Reader(Generic[T]):
    """An asynchronous iterator over a queue."""

    def __init__(self, queue: Queue[T]) -> None:
        self._queue = queue

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await self._queue.get()


class Readers(Generic[T]):
    """A stream: each reader gets what is put after it began to read."""

    def __init__(self) -> None:
        # a reader that nobody holds any more takes its queue with it
        self._queues: weakref.WeakKeyDictionary[Reader[T], Queue[T]] = weakref.WeakKeyDictionary()
        self._over = False
        self._error: RealtimeError | None = None

    def read(self) -> AsyncIterator[T]:
        """A new reader."""
        queue: Queue[T] = Queue()
        if self._over:
            queue.end(self._error)
        reader = Reader(queue)
        self._queues[reader] = queue
        return reader

    def put(self, item: T) -> None:
        """To every reader."""
        for queue in list(self._queues.values()):
            queue.put(item)

    def end(self, error: RealtimeError | None = None) -> None:
        """To every reader, and to those to come."""
        self._over, self._error = True, error
        for queue in list(self._queues.values()):
            queue.end(error)
