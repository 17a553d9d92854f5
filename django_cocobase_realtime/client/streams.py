"""What a program awaits: a result that arrives once, and streams with any number of readers."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from .errors import RealtimeError

T = TypeVar("T")


class Ready:
    """A result without a value: pending, done or failed.

    Unlike a future, it may fail without being awaited. ``replaces`` is an earlier result that
    this one supersedes; it gets the same outcome, so that its waiters return.
    """

    def __init__(self, replaces: Ready | None = None) -> None:
        self._settled = asyncio.Event()
        self._error: RealtimeError | None = None
        self._replaces = replaces

    def done(self) -> None:
        """Mark it as done. A result that has failed stays failed."""
        self._settled.set()
        replaced, self._replaces = self._replaces, None
        if replaced is not None:
            replaced.done()

    def fail(self, error: RealtimeError) -> None:
        """Mark it as failed, unless it is done or failed already."""
        if not self._settled.is_set():
            self._error = error
            self._settled.set()
        replaced, self._replaces = self._replaces, None
        if replaced is not None:
            replaced.fail(error)

    async def wait(self) -> None:
        """Wait until it is done. Raises the error that it failed with."""
        await self._settled.wait()
        if self._error is not None:
            raise self._error


class Queue(Generic[T]):
    """A queue for one reader that can end, normally or with an error.

    ``on_empty`` is called each time the reader takes the last item.
    """

    def __init__(self, on_empty: Callable[[], None] | None = None) -> None:
        self._items: deque[T] = deque()
        # set while there is something for the reader: an item or the end
        self._readable = asyncio.Event()
        self._ended = False
        self._error: RealtimeError | None = None
        self._on_empty = on_empty

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Append an item; does nothing after the end."""
        if not self._ended:
            self._items.append(item)
            self._readable.set()

    def end(self, error: RealtimeError | None = None) -> None:
        """End the queue. The reader still gets the remaining items, and then ``error`` if given."""
        if not self._ended:
            self._ended, self._error = True, error
            self._readable.set()

    async def get(self) -> T:
        """Wait for the next item and return it.

        Raises ``StopAsyncIteration`` at the end, or the error that the queue ended with.
        """
        while not self._items:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._readable.clear()
            await self._readable.wait()
        item = self._items.popleft()
        if not self._items and self._on_empty is not None:
            self._on_empty()
        return item


class QueueIterator(Generic[T]):
    """An asynchronous iterator over a queue."""

    def __init__(self, queue: Queue[T]) -> None:
        self._queue = queue

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await self._queue.get()


class Broadcaster(Generic[T]):
    """A stream with any number of readers: each gets the items that follow its creation."""

    def __init__(self) -> None:
        # weak, so that the queue of an iterator that is no longer referenced stops growing
        self._queues: weakref.WeakKeyDictionary[QueueIterator[T], Queue[T]] = (
            weakref.WeakKeyDictionary()
        )
        self._ended = False
        self._error: RealtimeError | None = None

    def iterate(self) -> AsyncIterator[T]:
        """Return an iterator over the items that are put from now on."""
        queue: Queue[T] = Queue()
        if self._ended:
            queue.end(self._error)
        iterator = QueueIterator(queue)
        self._queues[iterator] = queue
        return iterator

    def put(self, item: T) -> None:
        """Append an item to the queue of every iterator."""
        for queue in list(self._queues.values()):
            queue.put(item)

    def end(self, error: RealtimeError | None = None) -> None:
        """End all iterators, including those created later; with ``error``, they raise it."""
        self._ended, self._error = True, error
        for queue in list(self._queues.values()):
            queue.end(error)
