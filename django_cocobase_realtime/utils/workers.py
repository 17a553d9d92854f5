"""Worker threads, which make the calls of a `FairQueue`."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from django.db import connections

from . import kept_connections
from .fair_queue import SERVER, FairQueue, Job, Owner


class FairWorkers:
    """Threads that make calls, at most ``size()`` of them. They are started when needed.

    A thread closes the database connections that it keeps when it has had no call for
    `kept_connections.IDLE_SECONDS`, or when `close_connections` was called.
    """

    def __init__(self, name: str, size: Callable[[], int]) -> None:
        self._name = name
        self._get_size = size
        self._reset()
        _all_workers.add(self)

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._queue = FairQueue()
        self._threads: set[threading.Thread] = set()
        # number of threads that wait for a call
        self._idle = 0
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
        with self._condition:
            if self._closed:
                raise RuntimeError("The process is about to end.")
            self._queue.add(job, time.monotonic())
            if size < self._size:
                self._condition.notify_all()  # threads that are too many end
            self._size = size
            if self._idle < self._queue.waiting and len(self._threads) < size:
                self._start_thread()
            self._condition.notify()
        return job

    def discard(self, job: Job) -> None:
        """Do not make a call that waits; if it runs already, its result is ignored."""
        with self._condition:
            self._queue.remove(job)
        job.future.cancel()

    def close_connections(self) -> None:
        """Let threads close the connections that they keep."""
        with self._condition:
            self._must_close = set(self._keeping)
            self._condition.notify_all()

    @property
    def is_closing_connections(self) -> bool:
        """Whether threads that make no call have not closed their connections yet."""
        with self._condition:
            return bool(self._must_close - self._busy)

    def close(self) -> None:
        """Wait for the calls that run, drop those that wait, and end the threads."""
        with self._condition:
            self._closed = True
            waiting = self._queue.drain()
            threads = list(self._threads)
            self._condition.notify_all()
        for job in waiting:
            job.future.cancel()
        for thread in threads:
            thread.join()

    def _start_thread(self) -> None:
        name = f"realtime-{self._name}-{next(self._numbers)}"
        # not waited for by the interpreter, which would do so before `_close_all`
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        thread.start()
        self._threads.add(thread)

    def _work(self) -> None:
        thread = threading.current_thread()
        try:
            while (job := self._wait_for_job(thread)) is not None:
                if job is _CLOSE_CONNECTIONS:
                    kept_connections.close_kept()
                    with self._condition:
                        self._keeping.discard(thread)
                        self._must_close.discard(thread)
                    continue
                run_job(job)
                with self._condition:
                    self._busy.discard(thread)
                    self._queue.end(job, time.monotonic())
                    if self._idle and self._queue.waiting:
                        # this call may have kept two others from running
                        self._condition.notify()
                del job  # it holds the result
        finally:
            with self._condition:
                self._forget(thread)
            connections.close_all()

    def _wait_for_job(self, thread: threading.Thread) -> Job | None:
        """Return the next call, or `_CLOSE_CONNECTIONS`, or None if the thread must end."""
        with self._condition:
            while True:
                if self._closed or len(self._threads) > self._size:
                    self._forget(thread)
                    return None
                if thread in self._must_close:
                    return _CLOSE_CONNECTIONS
                job = self._queue.start_next(time.monotonic(), self._size)
                if job is not None:
                    self._busy.add(thread)
                    self._keeping.add(thread)
                    return job
                keeps = thread in self._keeping
                self._idle += 1
                try:
                    is_notified = self._condition.wait(
                        kept_connections.IDLE_SECONDS if keeps else None
                    )
                finally:
                    self._idle -= 1
                if not is_notified and keeps:
                    return _CLOSE_CONNECTIONS

    def _forget(self, thread: threading.Thread) -> None:
        for threads in (self._threads, self._busy, self._keeping, self._must_close):
            threads.discard(thread)


def run_job(job: Job) -> None:
    """Make a call that was not cancelled, and set its future."""
    if not job.future.set_running_or_notify_cancel():
        return
    try:
        result = job.call()
    except BaseException as error:  # raised again by the code that waits for the result
        job.future.set_exception(error)
    else:
        job.future.set_result(result)


# returned to a thread instead of a call
_CLOSE_CONNECTIONS = Job(kept_connections.close_kept)

_all_workers: weakref.WeakSet[FairWorkers] = weakref.WeakSet()


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
