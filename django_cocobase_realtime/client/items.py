"""Iterators of the client without asyncio, which wait in the thread that iterates."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import AsyncIterator
from typing import Any, Generic, Self, TypeVar

from .background_loop import WAIT_INTERVAL, Loop, wait_for
from .errors import RealtimeError

T = TypeVar("T")

# at the end of an iteration; no exception, since a future must not raise StopIteration
_END: Any = object()


class Items(Generic[T]):
    """An iterator over what the client receives. It ends when its source ends.

    Each item is for one of the threads that iterate.
    """

    def __init__(self, loop: Loop, source: AsyncIterator[T]) -> None:
        self._loop = loop
        self._source = source
        # held by the thread that waits
        self._lock = threading.Lock()
        # the next item; kept after a timeout, since it may have arrived at the same moment
        self._next: concurrent.futures.Future[T] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        item = self._get(None)
        if item is _END:
            raise StopIteration
        return item

    def get(self, timeout: float | None = None) -> T:
        """Return the next item. Raises ``TimeoutError`` if there is none in ``timeout`` seconds.

        Raises `RealtimeError` (``closed``) after the end.
        """
        item = self._get(timeout)
        if item is _END:
            raise RealtimeError("closed", "There are no more items.", source="connection")
        return item

    def _get(self, timeout: float | None) -> T:
        end = None if timeout is None else time.monotonic() + timeout
        while not self._lock.acquire(timeout=WAIT_INTERVAL if timeout is None else timeout):
            if end is not None:
                raise TimeoutError("Another thread is waiting for the same item.")
        try:
            if self._next is None:
                try:
                    self._next = self._loop.submit(_next_item(self._source))
                except RealtimeError:
                    return _END  # type: ignore[no-any-return]  # closed before
            item = wait_for(self._next, None if end is None else max(0.0, end - time.monotonic()))
            self._next = None
            return item
        except TimeoutError:
            raise
        except Exception:
            self._next = None
            raise
        finally:
            self._lock.release()

    def __del__(self) -> None:
        # otherwise the coroutine that waits would keep the source in use
        pending: concurrent.futures.Future[T] | None = getattr(self, "_next", None)
        if pending is not None:
            pending.cancel()


async def _next_item(source: AsyncIterator[T]) -> T:
    try:
        return await anext(source)
    except StopAsyncIteration:
        return _END  # type: ignore[no-any-return]
