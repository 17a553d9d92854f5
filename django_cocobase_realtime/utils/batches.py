"""Items of many tasks that are handled in one call of a worker thread.

While a call runs, further items wait for the next one. So there are as few calls as the load
allows, and a thread is woken once for many items. If a call takes long, because the database is
slow, another one is made beside it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from .fair_queue import Owner
from .workers import FairWorkers

# most items that are handled in one call
MAX_ITEMS = 64
# seconds that a call may take until another one is made beside it
SLOW_SECONDS = 0.02

Call = Callable[[list[Any]], list[Any]]


class _Waiting:
    """The items that wait and may be handled together."""

    def __init__(self, call: Call) -> None:
        self.call = call
        # items, and the futures of their results, by account; the next account is the first one
        self.accounts: dict[Hashable, deque[tuple[Any, asyncio.Future[Any]]]] = {}

    def take(self) -> list[tuple[Any, asyncio.Future[Any]]]:
        """Remove and return up to `MAX_ITEMS` items, one of each account in turn."""
        taken: list[tuple[Any, asyncio.Future[Any]]] = []
        while self.accounts and len(taken) < MAX_ITEMS:
            account = next(iter(self.accounts))
            items = self.accounts.pop(account)
            item, future = items.popleft()
            if items:
                self.accounts[account] = items
            if not future.done():  # its task was not cancelled
                taken.append((item, future))
        return taken


class Batches:
    """Handles the items of the tasks of one event loop, to which it has no reference.

    Each account gets the same number of items into a call, so that an account with many items does
    not delay others.
    """

    def __init__(self, workers: FairWorkers, max_calls: Callable[[], int]) -> None:
        self._workers = workers
        # returns how many calls may run at the same time
        self._max_calls = max_calls
        # by the keys that `run` got
        self._waiting: dict[Hashable, _Waiting] = {}
        # number of calls that run
        self._running = 0
        # starts the next call
        self._next: asyncio.Handle | None = None
        # each call has an account of its own among those of the workers, since it is for many
        self._numbers = itertools.count()

    async def run(self, account: Hashable, key: Hashable, call: Call, item: Any) -> Any:
        """Handle an item together with others that have the same key.

        ``call`` returns a list with the result for each item, or the exception to raise.
        """
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(call)
        future = asyncio.get_running_loop().create_future()
        waiting.accounts.setdefault(account, deque()).append((item, future))
        self._schedule()
        return await future

    def _schedule(self) -> None:
        if self._next is not None or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        if not self._running:
            # in the next iteration of the event loop, so that items of this one are included
            self._next = loop.call_soon(self._start)
        elif self._running < self._max_calls():
            self._next = loop.call_later(SLOW_SECONDS, self._start)

    def _start(self) -> None:
        """Make a call for the items that have waited longest."""
        self._next = None
        while self._waiting:
            key, waiting = next(iter(self._waiting.items()))
            del self._waiting[key]
            taken = waiting.take()
            if waiting.accounts:
                self._waiting[key] = waiting
            if taken:
                self._make_call(waiting.call, taken)
                break
        self._schedule()

    def _make_call(self, call: Call, taken: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        items = [item for item, _ in taken]
        futures = [future for _, future in taken]
        owner = Owner(("batch", next(self._numbers)), is_single=True)
        try:
            job = self._workers.submit(lambda: call(items), owner)
        except RuntimeError as error:  # the process is about to end
            _set_results(futures, [error] * len(futures))
            return
        self._running += 1
        loop = asyncio.get_running_loop()

        def end(done: Future[list[Any]]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._end, done, futures)

        job.future.add_done_callback(end)

    def _end(self, done: Future[list[Any]], futures: list[asyncio.Future[Any]]) -> None:
        self._running -= 1
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._schedule()
        if done.cancelled():
            for future in futures:
                future.cancel()
            return
        error = done.exception()
        _set_results(futures, done.result() if error is None else [error] * len(futures))


def _set_results(futures: list[asyncio.Future[Any]], results: list[Any]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():  # its task was cancelled
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
