"""Helpers that run code in worker threads and in background tasks."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from django.db import close_old_connections, connections

from ..conf import conf

P = ParamSpec("P")
T = TypeVar("T")

_pool_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0

# tasks started by `spawn_task` that have not ended
_running_tasks: set[asyncio.Task[Any]] = set()


def _get_pool() -> ThreadPoolExecutor:
    """Return the thread pool. It has ``WORKERS`` threads, and is replaced if that changes."""
    global _pool, _pool_size
    size = conf.workers
    with _pool_lock:
        if _pool is None or _pool_size != size:
            if _pool is not None:
                _pool.shutdown(wait=False)
            _pool = ThreadPoolExecutor(size, thread_name_prefix="realtime-worker")
            _pool_size = size
        return _pool


async def run_in_threadpool(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function, which may use the ORM, in a thread of the pool, and return its result.

    Before and after the call, database connections that are too old or broken are closed, as
    Django does before and after requests.
    """

    def call() -> T:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_get_pool(), context.run, call)


class DatabaseThread:
    """A thread that keeps one database connection open, for regular queries."""

    def __init__(self, using: str) -> None:
        # alias of the database
        self._using = using
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"realtime-log-{using}")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the thread, and return its result.

        After an exception the connection is closed; the next call opens a new one.
        """

        def call() -> T:
            try:
                return function(*args, **kwargs)
            except Exception:
                connections[self._using].close()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        """Close the connection and end the thread, after the calls that were already made."""
        self._thread.submit(lambda: connections[self._using].close())
        self._thread.shutdown(wait=False)


def spawn_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that runs to its end even if the caller keeps no reference to it.

    Event loops have only weak references to tasks, so a task without another reference may be
    garbage collected while it runs.
    """
    task = asyncio.get_running_loop().create_task(coroutine)
    _running_tasks.add(task)
    task.add_done_callback(_running_tasks.discard)
    return task


async def run_shielded(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, even if the caller is cancelled, and return its result."""
    return await asyncio.shield(spawn_task(coroutine))
