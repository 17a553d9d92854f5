"""The process that calls handlers: a thread for each of them, woken by announcements."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress

from django.db import connections

from ..declarations.handler import ChangeHandler
from ..declarations.registry import registry
from ..pubsub.listener import DatabaseListener, supports_listen
from ..utils.repeated_log import omitted_text, repeated_log
from .leases import Leases
from .runner import HandlerRunner, Outcome

logger = logging.getLogger(__name__)

# seconds between two reads of the log without an announcement
POLL_INTERVAL = 1.0
# seconds until the log is read again after an exception of the database
RETRY_INTERVAL = 1.0
# seconds after which a handler that is stopped is looked at again
STOPPED_INTERVAL = 5.0


class _HandlerThread:
    """The thread that calls one handler until `stop`."""

    def __init__(self, handler: ChangeHandler, leases: Leases) -> None:
        self._handler = handler
        self._is_stopping = threading.Event()
        # set if the log may have new events, and to stop
        self._wake = threading.Event()
        self._runner = HandlerRunner(handler, leases, self._is_stopping.is_set)
        self._thread = threading.Thread(target=self._run, name=f"handler {handler.name}")
        self._thread.start()

    def wake(self) -> None:
        """Read the log."""
        self._wake.set()

    def stop(self) -> None:
        """End after the function has returned."""
        self._is_stopping.set()
        self._wake.set()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_stopping.is_set():
                self._wake.clear()
                try:
                    outcome = self._runner.run_batch()
                except Exception as error:
                    self._log(error)
                    connections.close_all()
                    self._is_stopping.wait(RETRY_INTERVAL)
                else:
                    self._pause(outcome)
        finally:
            with suppress(Exception):  # otherwise, the lease ends by itself
                self._runner.close()
            connections.close_all()

    def _pause(self, outcome: Outcome) -> None:
        """Wait until the log must be read again."""
        match outcome:
            case Outcome.IDLE if not self._is_stopping.is_set():
                self._wake.wait(POLL_INTERVAL)
            case Outcome.ELSEWHERE:
                self._is_stopping.wait(POLL_INTERVAL)
            case Outcome.FAILED:
                self._is_stopping.wait(self._runner.retry_delay)
            case Outcome.STOPPED:
                self._is_stopping.wait(STOPPED_INTERVAL)

    def _log(self, error: Exception) -> None:
        omitted = repeated_log.admit(("handler", self._handler.name, type(error)))
        if omitted is not None:
            logger.error(
                "Handler %r cannot continue; it will be tried again: %r%s",
                self._handler.name,
                error,
                omitted_text(omitted),
                exc_info=error,
            )


def run(handlers: Iterable[ChangeHandler]) -> None:
    """Call handlers until the process gets SIGINT or SIGTERM. Must run in the main thread."""
    asyncio.run(_run(list(handlers)))


async def _run(handlers: Sequence[ChangeHandler]) -> None:
    leases, must_stop, loop = Leases(), asyncio.Event(), asyncio.get_running_loop()
    with suppress(NotImplementedError):  # Windows: SIGINT cancels this task
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, must_stop.set)
    threads = {handler.name: _HandlerThread(handler, leases) for handler in handlers}
    listeners = _listen(handlers, threads)
    try:
        await must_stop.wait()
    finally:
        for thread in threads.values():
            thread.stop()
        stopping = [listener.stop() for listener in listeners]
        for thread in threads.values():
            await asyncio.to_thread(thread.join)
        leases.close()
        if stopping:
            await asyncio.wait(stopping, timeout=1.0)


def _listen(
    handlers: Sequence[ChangeHandler], threads: dict[str, _HandlerThread]
) -> list[DatabaseListener]:
    """Wake threads by announcements in the databases that support this."""
    by_stream: dict[str, list[_HandlerThread]] = {}
    listeners: dict[str, DatabaseListener] = {}

    def wake(stream: str) -> None:
        for thread in by_stream.get(stream, ()):
            thread.wake()

    def wake_all(using: str, streams: list[str]) -> None:
        for stream in streams:
            wake(stream)

    for handler in handlers:
        collection = registry.get(handler.collection)
        by_stream.setdefault(collection.stream, []).append(threads[handler.name])
        using = collection.database
        if not supports_listen(using):
            continue
        if using not in listeners:
            # servers without LISTEN need the channel layer, even if this process listens
            listeners[using] = DatabaseListener(using, wake, wake_all, is_counted=False)
        listeners[using].follow(collection.stream)
    return list(listeners.values())


def run_once(handlers: Iterable[ChangeHandler]) -> dict[str, Outcome]:
    """Call handlers, one after the other, with all changes that are committed.

    Returns the last outcome by the name of the handler. One that fails is not tried again.
    """
    leases = Leases()
    outcomes: dict[str, Outcome] = {}
    try:
        for handler in handlers:
            runner = HandlerRunner(handler, leases)
            try:
                while (outcome := runner.run_batch()) is Outcome.MORE:
                    pass
                outcomes[handler.name] = outcome
            finally:
                runner.close()
    finally:
        leases.close()
    return outcomes
