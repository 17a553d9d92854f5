"""Worker threads, which make the calls of a `FairQueue`."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from queue import Empty, SimpleQueue
from typing import Any

from django.db import connections

from ..metrics import Histogram, metrics
from . import kept_connections
from .fair_queue import SERVER, FairQueue, Job, Owner


class FairWorkers:
    """Threads that make calls, at most ``size()`` of them. They are started when needed.

    A thread closes the database connections that it keeps when it has had no call for
    `kept_connections.IDLE_SECONDS`, or when `close_connections` was called.
    """

    def __init__(self, name: str, size: Callable[[], int]) -> None:
        self.name = name
        # how long calls have waited
        self._waits = metrics.worker_waits.setdefault(name, Histogram())
        self._get_size = size
        self._reset()
        _all_workers.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._queue = FairQueue()
        self._threads: set[threading.Thread] = set()
        # threads that wait, each for an item of a queue of its own; the last one is woken first, so
        # that the others close their connections. Faster than `threading.Condition`.
        self._idle: dict[threading.Thread, SimpleQueue[None]] = {}
        # threads that make a call
        self._busy: set[threading.Thread] = set()
        # threads that may keep database connections
        self._keeping: set[threading.Thread] = set()
        # those of them that must close their connections now, or after the call that they make
        self._must_close: set[threading.Thread] = set()
        # number of threads as of the last `submit`
        self._size = 1
        self._closed = False
        self._numbers = itertools.count()

    def submit(
        self, call: Callable[[], Any], owner: Owner = SERVER, subject: Hashable = None
    ) -> Job:
        """Make a call in a thread. The result is that of the job's ``future``."""
        job = Job(call, owner, subject)
        size = self._get_size()
        with self._lock:
            if self._closed:
                raise RuntimeError("The process is about to end.")
            self._queue.add(job, time.monotonic())
            if size < self._size:
                self._wake_all()  # threads that are too many end
            self._size = size
            if self._idle:
                self._wake()
            elif len(self._threads) < size:
                self._start_thread()
        return job

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a thread."""
        return self._queue.waiting

    def discard(self, job: Job) -> None:
        """Do not make a call that waits; if it runs already, its result is ignored."""
        with self._lock:
            self._queue.remove(job)
        job.future.cancel()

    def close_connections(self) -> None:
        """Let threads close the connections that they keep."""
        with self._lock:
            self._must_close = set(self._keeping)
            self._wake_all()

    @property
    def is_closing_connections(self) -> bool:
        """Whether threads that make no call have not closed their connections yet."""
        with self._lock:
            return bool(self._must_close - self._busy)

    def close(self) -> None:
        """Wait for the calls that run, drop those that wait, and end the threads."""
        with self._lock:
            self._closed = True
            waiting = self._queue.drain()
            threads = list(self._threads)
            self._wake_all()
        for job in waiting:
            job.future.cancel()
        for thread in threads:
            thread.join()

    def _wake(self) -> None:
        _, wakes = self._idle.popitem()
        wakes.put(None)

    def _wake_all(self) -> None:
        while self._idle:
            self._wake()

    def _start_thread(self) -> None:
        name = f"realtime-{self.name}-{next(self._numbers)}"
        # not waited for by the interpreter, which would do so before `_close_all`
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        thread.start()
        self._threads.add(thread)

    def _work(self) -> None:
        thread = threading.current_thread()
        wakes: SimpleQueue[None] = SimpleQueue()
        job: Job | None = None
        try:
            while True:
                with self._lock:
                    self._idle.pop(thread, None)  # it was not woken, if it waited
                    ended, job = job, None
                    if ended is not None:
                        self._end(ended, thread)
                    must_close = thread in self._must_close
                    must_end = self._closed or len(self._threads) > self._size
                    if must_end:
                        self._forget(thread)
                        if self._idle and self._queue.waiting:
                            self._wake()
                    elif not must_close:
                        job = self._start_job(thread)
                    if job is None and not must_close and not must_end:
                        self._idle[thread] = wakes
                if ended is not None:
                    # after the lines above, so that callers do not find this thread busy
                    ended.finish()
                    ended = None  # it holds the result
                if must_end:
                    return
                if job is not None:
                    job.run()
                elif must_close or not self._wait(thread, wakes):
                    self._close_connections(thread)
        finally:
            with self._lock:
                self._forget(thread)
            connections.close_all()

    def _start_job(self, thread: threading.Thread) -> Job | None:
        job = self._queue.start_next(time.monotonic(), self._size)
        if job is not None:
            self._waits.observe(job.started_at - job.queued_at)
            self._busy.add(thread)
            self._keeping.add(thread)
        return job

    def _end(self, job: Job, thread: threading.Thread) -> None:
        self._busy.discard(thread)
        self._queue.end(job, time.monotonic())
        if self._idle and self._queue.waiting > 1:
            # this call may have kept two others from running, of which this thread takes one
            self._wake()

    def _wait(self, thread: threading.Thread, wakes: SimpleQueue[None]) -> bool:
        """Wait until there is something to do; return False if connections must be closed first."""
        keeps = thread in self._keeping
        try:
            wakes.get(timeout=kept_connections.IDLE_SECONDS if keeps else None)
        except Empty:
            return False
        return True

    def _close_connections(self, thread: threading.Thread) -> None:
        kept_connections.close_kept()
        with self._lock:
            self._keeping.discard(thread)
            self._must_close.discard(thread)

    def _forget(self, thread: threading.Thread) -> None:
        self._idle.pop(thread, None)
        for threads in (self._threads, self._busy, self._keeping, self._must_close):
            threads.discard(thread)


_all_workers: weakref.WeakSet[FairWorkers] = weakref.WeakSet()


def count_waiting() -> dict[str, int]:
    """Return how many calls wait for a thread, by name of the pool."""
    counts: dict[str, int] = {}
    for workers in list(_all_workers):
        counts[workers.name] = counts.get(workers.name, 0) + workers.waiting
    return counts


def close_kept_connections() -> bool:
    """Let idle threads close the connections that they keep; return whether some have to."""
    for workers in list(_all_workers):
        workers.close_connections()
    return are_connections_closing()


def are_connections_closing() -> bool:
    """Return whether threads have not closed their connections yet."""
    return any(workers.is_closing_connections for workers in list(_all_workers))


def _close_all() -> None:
    for workers in list(_all_workers):
        workers.close()


def _reset_all() -> None:
    """Forget the threads of the parent process, which a forked process does not have."""
    for workers in list(_all_workers):
        workers._reset()


# At exit, this runs before the interpreter refuses new work in thread pools, which calls may need.
getattr(threading, "_register_atexit", atexit.register)(_close_all)
os.register_at_fork(after_in_child=_reset_all)
