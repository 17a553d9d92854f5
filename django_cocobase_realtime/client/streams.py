"""Awaitable results and iterators, which a program waits for."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from .errors import RealtimeError

T = TypeVar("T")


class Ready:
    """A result without a value, which is pending, done or failed.

    Unlike a future, it may fail without being awaited: asyncio then logs no warning.
    """

    def __init__(self, replaces: Ready | None = None) -> None:
        # set when the result is done or failed
        self._settled = asyncio.Event()
        # the error that it failed with
        self._error: RealtimeError | None = None
        # an earlier result that gets the same outcome, so that its waiters return
        self._replaces = replaces

    @property
    def is_settled(self) -> bool:
        """Whether the result is done or failed."""
        return self._settled.is_set()

    def done(self) -> None:
        """Mark the result as done. A result that has failed stays failed."""
        self._settled.set()
        replaced, self._replaces = self._replaces, None
        if replaced is not None:
            replaced.done()

    def fail(self, error: RealtimeError) -> None:
        """Mark the result as failed, unless it is done already."""
        if not self._settled.is_set():
            self._error = error
            self._settled.set()
        replaced, self._replaces = self._replaces, None
        if replaced is not None:
            replaced.fail(error)

    async def wait(self) -> None:
        """Wait until the result is done. If it failed, raise the error."""
        await self._settled.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)


class Queue(Generic[T]):
    """A queue that can be ended, normally or with an error. Each item is for one reader."""

    def __init__(self, on_empty: Callable[[], None] | None = None) -> None:
        self._items: deque[T] = deque()
        # set while `get` need not wait, because there is an item or the queue has ended
        self._readable = asyncio.Event()
        self._ended = False
        # the error that the queue was ended with
        self._error: RealtimeError | None = None
        # called each time the reader takes the last item
        self._on_empty = on_empty

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Append an item. Do nothing if the queue has ended."""
        if not self._ended:
            self._items.append(item)
            self._readable.set()

    def end(self, error: RealtimeError | None = None) -> None:
        """End the queue. The reader gets the remaining items first, and then ``error`` if given."""
        if not self._ended:
            self._ended, self._error = True, error
            self._readable.set()

    def clear(self) -> None:
        """Drop the items that were not read."""
        self._items.clear()

    async def get(self) -> T:
        """Wait for the next item and return it.

        If the queue has ended, raises its error or ``StopAsyncIteration``.
        """
        while not self._items:
            if self._ended:
                if self._error is not None:
                    raise self._error.with_traceback(None)
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
    """A source of items with any number of iterators.

    An iterator gets the items that are put after its creation. The first one also gets the last
    ``backlog`` items before it, so that a program which begins to read a little later misses
    nothing.
    """

    def __init__(self, backlog: int = 0) -> None:
        # items before the first iterator; None after it was created
        self._backlog: deque[T] | None = deque(maxlen=backlog)
        # queues by iterator, weakly, so that the queue of an unused iterator does not grow
        self._queues: weakref.WeakKeyDictionary[QueueIterator[T], Queue[T]] = (
            weakref.WeakKeyDictionary()
        )
        self._ended = False
        self._error: RealtimeError | None = None

    def iterate(self) -> AsyncIterator[T]:
        """Return a new iterator over the items that are put from now on."""
        queue: Queue[T] = Queue()
        for item in self._backlog or ():
            queue.put(item)
        self._backlog = None
        if self._ended:
            queue.end(self._error)
        iterator = QueueIterator(queue)
        self._queues[iterator] = queue
        return iterator

    def put(self, item: T) -> None:
        """Append an item to the queue of every iterator."""
        if self._backlog is not None:
            self._backlog.append(item)
        for queue in list(self._queues.values()):
            queue.put(item)

    def clear(self) -> None:
        """Drop the items that were not read."""
        if self._backlog is not None:
            self._backlog.clear()
        for queue in list(self._queues.values()):
            queue.clear()

    def end(self, error: RealtimeError | None = None) -> None:
        """End all iterators, including those created later; with ``error``, they raise it."""
        self._ended, self._error = True, error
        for queue in list(self._queues.values()):
            queue.end(error)
