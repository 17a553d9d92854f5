"""Closing of all WebSockets before the server stops, so that clients move to other servers.

On SIGTERM, `views.health.ready` fails, new WebSockets are refused with the HTTP status 503, and
open ones are closed one after the other, evenly spread over the setting ``DRAIN``. HTTP requests
are served as before. Then the server's own handler of the signal is called. Further signals are
ignored until then. SIGINT is not handled here, so it stops the server at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ..conf import conf
from ..options import OPTIONS
from ..pubsub.broker import broker
from ..transport.shutdown import find_server
from ..utils.concurrency import other_tasks, set_owner, spawn_task
from ..utils.fair_queue import SERVER
from .termination import TerminationSignal

logger = logging.getLogger(__name__)

# a function that begins to close a WebSocket, with the `retry_after_ms` of the `closing` frame, or
# drops the connection at once if this is None
CloseSocket = Callable[[int | None], None]

# `retry_after_ms` of the connections; since they are closed one after the other, it may be short
RETRY_AFTER_MS = 500
# longest time in seconds between two closes: few connections need no longer, and a development
# server that reloads the code should not wait for them
MAX_PAUSE = 0.25
# seconds after the last close after which connections are dropped whose clients do not read
CLOSE_TIMEOUT = 0.7
# part of `DRAIN` over which the closes are spread at least; otherwise it is `DRAIN` without
# `CLOSE_TIMEOUT`, so that all connections have ended by then
MIN_SPREAD = 0.75
# seconds that it takes to drop them
DROP_TIMEOUT = 0.2
# seconds that departures from rooms and broadcasts may take to be stored and sent
FLUSH_TIMEOUT = 0.5
# shortest time in seconds between two rounds of closes, or two looks at what is awaited
POLL_INTERVAL = 0.02
# seconds for requests whose connection was accepted, but whose first bytes have not arrived
ARRIVAL_TIME = 0.15
# seconds that a server which would not wait gives to HTTP requests
REQUEST_TIMEOUT = 10.0


class Drain:
    """The open WebSockets of this process, and whether they are being closed for a shutdown."""

    def __init__(self) -> None:
        # whether SIGTERM has arrived
        self.is_draining = False
        # functions that close the open sockets, with their event loops, in the order of opening
        self._sockets: dict[CloseSocket, asyncio.AbstractEventLoop] = {}
        # monotonic time at which SIGTERM arrived
        self._began_at = 0.0
        self._signal = TerminationSignal(self._on_signal)

    # sockets

    def add(self, close: CloseSocket) -> None:
        """Register a WebSocket before it is accepted, and install the signal handler."""
        self.keep(close)
        self._signal.install()

    def keep(self, close: CloseSocket) -> None:
        """Register a WebSocket that is being closed, and that the server would wait for."""
        self._sockets[close] = asyncio.get_running_loop()

    def remove(self, close: CloseSocket) -> None:
        """Remove a WebSocket that is closed, when its rooms and subscriptions are removed too."""
        self._sockets.pop(close, None)

    def __len__(self) -> int:
        return len(self._sockets)

    # the drain

    def _on_signal(self) -> None:
        loop = self._signal.loop
        if self.is_draining or loop is None:
            return
        self.is_draining = True
        self._began_at = time.monotonic()
        loop.call_soon_threadsafe(lambda: spawn_task(self._run()))

    async def _run(self) -> None:
        set_owner(SERVER)  # not the client whose task the signal has interrupted
        total, seconds = len(self._sockets), _drain_seconds()
        logger.info("Draining: %d connections are closed within %g seconds.", total, seconds)
        try:
            spread = max(seconds - CLOSE_TIMEOUT, seconds * MIN_SPREAD)
            await self._close_sockets(self._began_at + spread)
            stalled = await self._drop_sockets()
            # hubs that shut down, and broadcasts on their way to the channel layer
            deadline = time.monotonic() + FLUSH_TIMEOUT
            await _wait_until(lambda: not other_tasks() and broker.flush(0), deadline)
            await self._stop_listening()
            logger.info(
                "Drained: %d connections were closed in %.1f seconds, %d of them dropped.",
                max(total, stalled),
                time.monotonic() - self._began_at,
                stalled,
            )
        except Exception:
            logger.exception("Draining failed; the server closes the connections.")
        self._signal.hand_over()

    async def _close_sockets(self, deadline: float) -> None:
        """Close all sockets until a deadline, and wait until they are closed, for a bounded time.

        A handshake that was accepted before the signal may still add a socket. If the event loop
        was blocked, the deadline may have passed already.
        """
        closing: set[CloseSocket] = set()
        last_close = time.monotonic()
        while self._sockets:
            waiting = [item for item in list(self._sockets.items()) if item[0] not in closing]
            if waiting:
                last_close = time.monotonic()
            elif time.monotonic() > last_close + CLOSE_TIMEOUT:
                return
            remaining = deadline - time.monotonic()
            count, pause = len(waiting), POLL_INTERVAL
            if waiting and remaining > 0:
                pause = min(max(remaining / count, POLL_INTERVAL), MAX_PAUSE)
                count = max(1, round(count * pause / remaining))
            for close, loop in waiting[:count]:
                closing.add(close)
                self._close(close, loop, RETRY_AFTER_MS)
            if count == len(waiting):
                pause = POLL_INTERVAL
            await asyncio.sleep(pause)

    async def _drop_sockets(self) -> int:
        """Drop the sockets whose clients do not read; return how many there are.

        uvicorn would wait for them without a limit.
        """
        stalled = list(self._sockets.items())
        for close, loop in stalled:
            self._close(close, loop, None)
        await _wait_until(lambda: not self._sockets, time.monotonic() + DROP_TIMEOUT)
        return len(stalled)

    def _close(
        self, close: CloseSocket, loop: asyncio.AbstractEventLoop, retry_after_ms: int | None
    ) -> None:
        try:
            loop.call_soon_threadsafe(close, retry_after_ms)
        except RuntimeError:  # the loop was closed, and the socket with it
            self.remove(close)

    async def _stop_listening(self) -> None:
        """Close the listening sockets, and wait for requests that the server would not answer."""
        server = find_server(self._signal.server_handler)
        if server is None:
            return
        deadline = time.monotonic() + REQUEST_TIMEOUT
        await asyncio.sleep(0)  # connections that wait are accepted
        server.stop_listening()
        await asyncio.sleep(ARRIVAL_TIME)
        await _wait_until(lambda: not server.is_busy(), deadline)


def _drain_seconds() -> float:
    """Return the setting ``DRAIN``; its default, if it is wrong."""
    try:
        if not conf.problems("DRAIN"):
            return conf.drain
    except Exception as error:
        logger.warning("The settings cannot be read: %r", error)
    return float(OPTIONS["DRAIN"].default)


async def _wait_until(condition: Callable[[], bool], deadline: float) -> None:
    """Wait for a condition, until a monotonic time."""
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - several threads
        await asyncio.sleep(POLL_INTERVAL)


# the drain of this process
drain = Drain()
