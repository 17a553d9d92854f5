"""The bounded thread pool in which permissions and authenticators run, ORM allowed."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import close_old_connections, connections

from ..conf import conf

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_size = 0


def _executor() -> ThreadPoolExecutor:
    global _pool, _size
    wanted = conf.workers
    with _lock:
        if _pool is None or _size != wanted:
            if _pool is not None:
                _pool.shutdown(wait=False)
            _pool, _size = ThreadPoolExecutor(wanted, thread_name_prefix="realtime-worker"), wanted
        return _pool


async def run_in_threadpool(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a worker thread; its database connections age as in a request."""

    def call() -> T:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_executor(), context.run, call)


class DatabaseThread:
    """One thread with one connection, kept open: for a database that is asked all the time."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"realtime-log-{using}")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` there; a failure closes the connection, the next call opens one."""

        def call() -> T:
            try:
                return function(*args, **kwargs)
            except Exception:
                connections[self._using].close()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        """Close the connection, once what is running is done, and end the thread."""
        self._thread.submit(lambda: connections[self._using].close())
        self._thread.shutdown(wait=False)
