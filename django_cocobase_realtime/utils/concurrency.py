"""Running work outside the current task: in threads, and in tasks that are never lost."""

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

_running_tasks: set[asyncio.Task[Any]] = set()


def _get_pool() -> ThreadPoolExecutor:
    """Return the pool with ``WORKERS`` threads; a new one if the setting has changed."""
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
    """Call a function that may use the ORM in a thread of a pool.

    Database connections that are too old or broken are closed before and after, as Django does
    for requests.
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
    """A thread with one database connection that stays open, for a database that is polled."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"realtime-log-{using}")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the thread. After an exception the next call opens a connection."""

        def call() -> T:
            try:
                return function(*args, **kwargs)
            except Exception:
                connections[self._using].close()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        """Close the connection and end the thread, after the calls that are in progress."""
        self._thread.submit(lambda: connections[self._using].close())
        self._thread.shutdown(wait=False)


def spawn_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that runs to its end even if the caller drops it.

    Event loops have only weak references to their tasks, so one that is not stored anywhere may
    be garbage collected while it runs.
    """
    task = asyncio.get_running_loop().create_task(coroutine)
    _running_tasks.add(task)
    task.add_done_callback(_running_tasks.discard)
    return task


async def run_shielded(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine, which runs to its end even if the caller is cancelled."""
    return await asyncio.shield(spawn_task(coroutine))
