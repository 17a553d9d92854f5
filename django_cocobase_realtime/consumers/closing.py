"""Closing of a socket whose client may not read.

Servers close a socket when the client has read all. Most of them wait for that without a limit,
also after the application has ended: uvicorn and hypercorn would keep the socket of a client that
does not read, and uvicorn waits for it when it is stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ..hub.drain import drain
from ..transport.tcp_connection import count_unsent_bytes, drop, find_transport, is_open
from ..types import Send

logger = logging.getLogger(__name__)

# seconds that a client has to read the close frame, and what was sent before it; a stalled client
# may still read it
CLOSE_TIMEOUT = 60.0
# seconds between two checks of whether a socket is closed: the first pause, and the longest; each
# one is twice as long as the one before
PAUSES = (0.02, 1.0)


class SocketCloser:
    """Closes the socket of a consumer, in the task that was running when it was created.

    After CLOSE_TIMEOUT the socket is dropped, and the task is cancelled if it has not ended.
    """

    __slots__ = ("_main", "_send", "_timer", "has_dropped")

    def __init__(self, send: Send) -> None:
        self._send = send
        # the task of the consumer; None when it is ending
        self._main = asyncio.current_task()
        # drops the socket if the client does not read
        self._timer: asyncio.TimerHandle | None = None
        # whether the consumer was cancelled because of that
        self.has_dropped = False

    async def close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call ``close``, which sends the close frame. It may wait for the client."""
        # the server may also say that it has sent the frame, and then wait for the client's answer
        self._timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._drop)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await close()
        except TimeoutError:
            self._drop()
        except Exception as error:
            logger.debug("The client closed the socket before the server did: %r", error)

    def _drop(self) -> None:
        """Drop the socket, and end the consumer; granian drops the socket then."""
        drop(find_transport(self._send))
        main, self._main = self._main, None
        if main is not None:
            self.has_dropped = True
            main.cancel()

    def end(self, on_closed: Callable[[], None]) -> None:
        """End, because the consumer ends; call ``on_closed`` when the socket is closed."""
        self._main = None
        if self._timer is not None:
            self._timer.cancel()
        transport = find_transport(self._send)
        if is_open(transport):
            LingeringSocket(transport, on_closed).wait()
        else:
            on_closed()


class LingeringSocket:
    """A socket that is open although its consumer has ended. It is dropped after CLOSE_TIMEOUT.

    The server waits until its client has read all, and uvicorn until it answers the close frame.
    """

    __slots__ = ("_deadline", "_loop", "_on_closed", "_pause", "_timer", "_transport")

    def __init__(self, transport: Any, on_closed: Callable[[], None]) -> None:
        self._transport = transport
        # called when the socket is closed; None afterwards
        self._on_closed: Callable[[], None] | None = on_closed
        self._loop = asyncio.get_running_loop()
        # time of the event loop at which the socket is dropped
        self._deadline = self._loop.time() + CLOSE_TIMEOUT
        # seconds until the next check
        self._pause = PAUSES[0]
        # calls `_check` again
        self._timer: asyncio.TimerHandle | None = None

    def wait(self) -> None:
        """Wait until the socket is closed, or the server is stopped."""
        drain.keep(self._drain)
        self._check()

    def _check(self) -> None:
        remaining = self._deadline - self._loop.time()
        if not is_open(self._transport) or (drain.is_draining and self._is_sent()):
            self._end()
        elif remaining > 0:
            self._timer = self._loop.call_later(min(self._pause, remaining), self._check)
            self._pause = min(2 * self._pause, PAUSES[1])
        else:
            drop(self._transport)
            self._end()

    def _is_sent(self) -> bool:
        """Return whether the server need not wait for the client when it is stopped."""
        return not count_unsent_bytes(self._transport)

    def _drain(self, retry_after_ms: int | None) -> None:
        if self._is_sent():
            self._end()
        elif retry_after_ms is None:
            drop(self._transport)
            self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        drain.remove(self._drain)
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            on_closed()
