"""An event loop in a background thread, for the client without asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .client import Realtime
from .errors import closed_error

T = TypeVar("T")

# seconds that a client may take to close, so that the end of a program is not delayed further
CLOSE_TIMEOUT = 5.0
# seconds between two looks at signals, on systems where a wait cannot be interrupted
WAIT_INTERVAL = 1.0


class Gate:
    """Decides whether calls are accepted, so that none is made after the end."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_open = True


class Loop:
    """An event loop in a background thread, in which a client runs.

    It ends with `stop`, when neither the client nor anything it returned is used any more, or at
    the end of the program.
    """

    def __init__(self, client: Realtime) -> None:
        self._loop = asyncio.new_event_loop()
        # the process that has the thread; a fork copies this object, but not the thread
        self._pid = os.getpid()
        self._gate = Gate()
        # a daemon, so that a client which was not closed does not keep the program alive; it has
        # no reference to this object
        self._thread = threading.Thread(
            target=_run_loop, args=(self._loop, self._gate), name="realtime", daemon=True
        )
        self._thread.start()
        # ends the client and the thread, once
        self.stop = weakref.finalize(
            self, _shut_down, self._loop, self._thread, self._gate, self._pid, client
        )

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine in the loop, and return a future of its result.

        Raises ``RuntimeError`` in the thread of the loop, which would wait for itself, and in a
        process that was forked from that of the client; `RealtimeError` if the client was closed.
        """
        try:
            if os.getpid() != self._pid:
                message = "This client was used before a fork; create one in each process."
                raise RuntimeError(message)
            if threading.current_thread() is self._thread:
                message = "A function that the client calls must not wait for the client."
                raise RuntimeError(message)
            with self._gate.lock:
                if not self._gate.is_open:
                    raise closed_error()
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine in the loop, and return its result.

        If it takes more than ``timeout`` seconds, or the wait is interrupted, it is cancelled.
        """
        future = self.submit(work)
        try:
            return wait_for(future, timeout)
        finally:
            future.cancel()


def _run_loop(loop: asyncio.AbstractEventLoop, gate: Gate) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        with gate.lock:
            gate.is_open = False
        # what still waits is cancelled, so that no thread waits for it without end
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(Exception):
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _shut_down(
    loop: asyncio.AbstractEventLoop,
    thread: threading.Thread,
    gate: Gate,
    pid: int,
    client: Realtime,
) -> None:
    """Close a client and end its thread.

    In that thread, where objects may be garbage collected, it does not wait.
    """
    if os.getpid() != pid:
        return  # after a fork: the connection belongs to the other process
    with gate.lock:
        if not gate.is_open:
            return  # the loop was ended by an exception such as `SystemExit`
        gate.is_open = False
        closing = asyncio.run_coroutine_threadsafe(client.close(), loop)
    closing.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
    if threading.current_thread() is not thread:
        thread.join(CLOSE_TIMEOUT)


def wait_for(future: concurrent.futures.Future[T], timeout: float | None = None) -> T:
    """Return the result of a future. Raises ``TimeoutError`` after ``timeout`` seconds.

    In the main thread, Ctrl-C interrupts the wait.
    """
    end = None if timeout is None else time.monotonic() + timeout
    while not future.done():
        remaining = WAIT_INTERVAL if end is None else end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"There was no result in {timeout:g} seconds.")
        concurrent.futures.wait([future], min(remaining, WAIT_INTERVAL))
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise closed_error() from None


async def run_function(function: Callable[[], T]) -> T:
    """Call a function in the loop."""
    return function()
