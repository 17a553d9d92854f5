"""Helpers that run code in worker threads and in background tasks."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import threading
import weakref
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from django.db import connections

from ..conf import conf
from . import kept_connections
from .batches import Batches
from .contexts import context_key
from .fair_queue import SERVER, Job, Owner
from .workers import FairWorkers, are_connections_closing, close_kept_connections

P = ParamSpec("P")
T = TypeVar("T")

# threads that authentication has at least, whatever `WORKERS` is
MIN_AUTHENTICATION_WORKERS = 2
# connections of a pool that worker threads leave to others
RESERVED_CONNECTIONS = 2
# `max_size` of psycopg's pool if it is not configured
DEFAULT_POOL_SIZE = 4
# seconds for which the end of the process waits for each `DatabaseThread`
EXIT_TIMEOUT = 5.0

# seconds that a hub waits for connections of worker threads to be closed
CLOSE_TIMEOUT = 1.0

# the client for which this task or thread works
_owner: contextvars.ContextVar[Owner] = contextvars.ContextVar("realtime_owner", default=SERVER)
# what its calls are about
_subject: contextvars.ContextVar[Hashable] = contextvars.ContextVar(
    "realtime_subject", default=None
)

# tasks started by `spawn_task` that have not ended
_running_tasks: set[asyncio.Task[Any]] = set()


def worker_count() -> int:
    """Return the number of worker threads.

    With a pool of database connections, there are fewer threads than `WORKERS` if they could use
    up the pool, so that `RESERVED_CONNECTIONS` remain for authentication and for reading the log.
    """
    sizes = (connection_pool_size(using) for using in connections.settings)
    available = (size - RESERVED_CONNECTIONS for size in sizes if size is not None)
    return max(1, min([conf.workers, *available]))


def authentication_worker_count() -> int:
    """Return the number of threads for authentication."""
    return max(MIN_AUTHENTICATION_WORKERS, conf.workers // 2)


def check_worker_count() -> int:
    """Return the number of threads for regular checks, so that each check has one of its own.

    There are checks by each authenticator and of permissions; twice, for several event loops.
    """
    return 2 * (len(conf.authenticators) + 1)


def connection_pool_size(using: str) -> int | None:
    """Return how many connections Django's pool for a database has at most; None without a pool."""
    options = connections.settings[using].get("OPTIONS", {}).get("pool")
    if not options:
        return None
    sizes = options if isinstance(options, dict) else {}
    return int(sizes.get("max_size") or sizes.get("min_size", DEFAULT_POOL_SIZE))


_workers = FairWorkers("worker", worker_count)
_authentication_workers = FairWorkers("authentication", authentication_worker_count)
_check_workers = FairWorkers("check", check_worker_count)
# items for the threads of authentication, by event loop
_batches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Batches] = (
    weakref.WeakKeyDictionary()
)


def set_owner(owner: Owner, subject: Hashable = None) -> None:
    """Let the calls of the running task, and of tasks that it starts, count for an owner.

    Without an owner they count for the server itself. Tasks that serve many clients call this
    with `SERVER`, because a task inherits the owner of the task that started it. ``subject`` is
    that of `run_for_subject`.
    """
    _owner.set(owner)
    _subject.set(subject)


def current_owner() -> Owner:
    """Return the owner for which the calls of the running task count."""
    return _owner.get()


async def run_in_threadpool(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function, which may use the ORM, in a worker thread, and return its result.

    The time counts for the owner of the task, see `set_owner`. If the task is cancelled before
    the call begins, the call is not made. Raises `WorkersOverloaded` if too many calls of the
    owner wait.

    Before and after the call, database connections that are too old or broken are closed. Others
    stay open for a short time, see `kept_connections`.
    """
    return await _run(_workers, _owner.get(), _subject.get(), partial(function, *args, **kwargs))


async def run_for_subject(
    subject: Hashable, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do the same as `run_in_threadpool` for one subject: a stream or a declaration of rooms.

    Calls for one subject never occupy more than half of the threads, so that slow code of one
    collection does not delay others.
    """
    return await _run(_workers, _owner.get(), subject, partial(function, *args, **kwargs))


async def run_authentication(
    owner: Owner, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do the same as `run_in_threadpool`, in threads that do nothing but authenticate clients."""
    return await _run(_authentication_workers, owner, None, partial(function, *args, **kwargs))


async def run_authentications(
    owner: Owner, function: Callable[[list[Any]], list[Any]], item: Any
) -> Any:
    """Do the same as `run_authentication` for an item that is handled together with others.

    ``function`` gets the items of calls that wait at the same time, and returns a list with the
    result for each, or the exception to raise. Calls are made together only if their tasks have
    the same context variables, since a database router or a manager may depend on them.
    """
    loop = asyncio.get_running_loop()
    batches = _batches.get(loop)
    if batches is None:
        batches = _batches[loop] = Batches(_authentication_workers, authentication_worker_count)
    context = contextvars.copy_context()

    def call(items: list[Any]) -> list[Any]:
        # several calls run at the same time if very many items wait, and one context is for one
        return context.copy().run(_call, function, items)

    return await batches.run(owner.account, (function, context_key(context)), call, item)


async def run_check(name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do the same as `run_in_threadpool`, in threads that do nothing but check all connections.

    Neither clients nor checks with other names can delay it.
    """
    owner = Owner(("check", name))
    return await _run(_check_workers, owner, None, partial(function, *args, **kwargs))


async def _run(
    workers: FairWorkers, owner: Owner, subject: Hashable, function: Callable[[], T]
) -> T:
    call = partial(contextvars.copy_context().run, _call, function)
    result: T = await _result(workers, workers.submit(call, owner, subject))
    return result


async def _result(workers: FairWorkers, job: Job) -> Any:
    try:
        return await asyncio.wrap_future(job.future)
    except asyncio.CancelledError:
        workers.discard(job)
        raise


def _call(function: Callable[..., T], *args: Any) -> T:
    kept_connections.before_call()
    try:
        return function(*args)
    finally:
        kept_connections.after_call()


async def stop_keeping_connections(holder: object) -> None:
    """Close the idle connections of worker threads, if they are kept for no other holder.

    Waits until they are closed, so that the database can be dropped, but not for calls that run.
    """
    if not kept_connections.release(holder) or not close_kept_connections():
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            while are_connections_closing():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


class DatabaseThread:
    """A thread that keeps one database connection open, for regular queries.

    If Django has a pool of connections, it is returned to the pool after each call instead. The
    connection is closed when the thread ends: after `close`, or when nothing refers to this object.
    """

    def __init__(self, using: str) -> None:
        # alias of the database
        self._using = using
        # the calls; None ends the thread. Unlike other queues, it can be used in a destructor.
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(
            # not waited for by the interpreter, which would do so before `_close_threads`
            target=_run_jobs,
            args=(self._jobs, using),
            name=f"realtime-log-{using}",
            daemon=True,
        )
        self._thread.start()
        self._end = weakref.finalize(self, self._jobs.put, None)
        _database_threads.add(self)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the thread, and return its result.

        After an exception the connection is closed; the next call opens a new one.
        """

        def call() -> T:
            try:
                result = function(*args, **kwargs)
            except Exception:
                connections[self._using].close()
                raise
            if connection_pool_size(self._using) is not None:
                connections[self._using].close()
            return result

        if not self._end.alive:
            raise RuntimeError("The thread was closed.")
        job = Job(call, SERVER, None)
        self._jobs.put(job)
        result: T = await asyncio.wrap_future(job.future)
        return result

    def close(self) -> None:
        """End the thread, after the calls that were already made."""
        self._end()

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended, but not longer than this."""
        self._thread.join(seconds)


def _run_jobs(jobs: SimpleQueue[Job | None], using: str) -> None:
    try:
        while (job := jobs.get()) is not None:
            job.run()
            job.finish()
            del job  # it refers to the `DatabaseThread`
    finally:
        connections[using].close()


_database_threads: weakref.WeakSet[DatabaseThread] = weakref.WeakSet()


def _close_threads() -> None:
    threads = list(_database_threads)
    for thread in threads:
        thread.close()
    for thread in threads:
        thread.join(EXIT_TIMEOUT)


# as in `workers`, before the interpreter refuses new work in thread pools
getattr(threading, "_register_atexit", atexit.register)(_close_threads)


def spawn_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that runs to its end even if the caller keeps no reference to it.

    Event loops have only weak references to tasks, so a task without another reference may be
    garbage collected while it runs.
    """
    task = asyncio.get_running_loop().create_task(coroutine)
    _running_tasks.add(task)
    task.add_done_callback(_running_tasks.discard)
    return task


def other_tasks() -> set[asyncio.Task[Any]]:
    """Return the tasks of `spawn_task` in this event loop that have not ended, except this one."""
    loop, current = asyncio.get_running_loop(), asyncio.current_task()
    return {t for t in list(_running_tasks) if t is not current and t.get_loop() is loop}


async def run_shielded(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, even if the caller is cancelled, and return its result."""
    return await asyncio.shield(spawn_task(coroutine))
