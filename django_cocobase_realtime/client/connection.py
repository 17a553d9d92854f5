"""The connection of a client: opens sockets, and moves frames between them and the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
except ImportError as missing:
    raise ImportError(
        'The client needs websockets: pip install "django-cocobase-realtime[client]"'
    ) from missing

from ..wire.codes import CloseCode
from .backoff import UNAVAILABLE_DELAY, Backoff
from .errors import RealtimeError, logger
from .interfaces import Frame
from .protocol import ClientProtocol

# a token, or a plain or asynchronous function that returns one
Token = str | Callable[[], str | Awaitable[str | None] | None] | None

# close code of a connection that ended without a close frame (RFC 6455, section 7.1.5)
ABNORMAL_CLOSURE = 1006
# a token is renewed after this share of the time until it expires
RENEWAL_SHARE = 0.8
# minimum in seconds before a token is renewed
MIN_RENEWAL_DELAY = 5.0
# seconds between two looks at the clock, which jumps if the machine was asleep
CLOCK_CHECK_INTERVAL = 1.0
# HTTP status with which a server answers if a proxy does not pass WebSockets on
UPGRADE_REQUIRED = 426
# options of `websockets.connect`. It sends no pings, because those of the protocol also measure
# the latency and notice that the machine was asleep. Compression costs the server more than it
# saves.
DEFAULT_OPTIONS: Mapping[str, Any] = {
    "ping_interval": None,
    "max_size": None,
    "close_timeout": 1,
    "compression": None,
}
_MISCONFIGURED_PROXY = (
    "A proxy in front of the server does not pass WebSockets on: it drops the headers Upgrade and "
    "Connection. The server's log names the proxy."
)


def now() -> float:
    """Return seconds since 1970, of a clock that continues while the machine is asleep."""
    return time.time()


class Connection:
    """Keeps a client connected: opens a socket, and another one after each loss."""

    def __init__(
        self,
        url: str,
        *,
        token: Token,
        timeout: float,
        random: Callable[[], float],
        options: Mapping[str, Any],
        on_status: Callable[[str, Mapping[str, Any]], None],
        on_error: Callable[[RealtimeError], None],
        on_terminated: Callable[[RealtimeError], None],
    ) -> None:
        self._url = url
        self._token = token
        # seconds that the server may take to accept a connection, and to answer
        self._timeout = timeout
        # options of `websockets.connect`
        self._options = {**DEFAULT_OPTIONS, "open_timeout": timeout, **options}
        # called with "connecting", "live" or "waiting", and details
        self._on_status = on_status
        # called with errors that belong to no request
        self._on_error = on_error
        # called with the reason if the server does not let this client reconnect
        self._on_terminated = on_terminated
        self._backoff = Backoff(random)
        # frames to send on the current socket
        self._outgoing: asyncio.Queue[Frame] = asyncio.Queue()
        # time at which the token must be renewed, in seconds since 1970
        self._renew_at: float | None = None
        # whether the current socket is closed because authentication failed in the server's code
        self._abandoned = False
        # the task that renews it; asyncio has only a weak reference to it
        self._renewal: asyncio.Task[None] | None = None
        # handles frames; has the state that continues on the next socket
        self.protocol = ClientProtocol(
            send=lambda frame: self._outgoing.put_nowait(frame),
            call_later=lambda delay, callback: asyncio.get_running_loop().call_later(
                delay, callback
            ),
            on_authenticated=self._handle_authenticated,
            on_auth_failure=self._handle_auth_failure,
            on_error=on_error,
            timeout=timeout,
            clock=now,
        )

    async def run(self) -> None:
        """Connect, and reconnect after each loss, until cancelled or terminated by the server."""
        while True:
            self._on_status("connecting", {})
            code, closing = await self._connect_once()
            connected_for = self.protocol.handle_disconnect()
            if code == CloseCode.PERMISSIONS_CHANGED:
                self.protocol.handle_permissions_changed()
            closing = closing or {}
            delay = self._backoff.next_delay(code, closing.get("retry_after_ms"), connected_for)
            if delay is None:
                reason = closing.get("reason") or f"Closed by the server with {code}."
                self._on_terminated(RealtimeError(code, reason))
                return
            await self._wait_before_retry(delay)

    async def _connect_once(self) -> tuple[int, Frame | None]:
        """Run one connection to its end; return the close code and the ``closing`` frame, if any.

        A connection that cannot be opened ends with `ABNORMAL_CLOSURE`.
        """
        try:
            return await self._run_socket(await self._fetch_token())
        except asyncio.CancelledError:
            self.protocol.handle_disconnect()
            raise
        except (OSError, WebSocketException) as error:
            if isinstance(error, InvalidStatus) and error.response.status_code == UPGRADE_REQUIRED:
                self._on_error(RealtimeError("upgrade_required", _MISCONFIGURED_PROXY))
                # a mistake in a configuration lasts longer than an outage
                return ABNORMAL_CLOSURE, {"retry_after_ms": UNAVAILABLE_DELAY * 1000}
            logger.warning("No connection to %s: %s", self._url, error or repr(error))
        except Exception as error:
            self._on_error(RealtimeError("not_connected", repr(error)))
        return ABNORMAL_CLOSURE, None

    async def _wait_before_retry(self, delay: float) -> None:
        """Wait for ``delay`` seconds, including time in which the machine is asleep.

        Two clocks are used: the wall clock continues while the machine is asleep, and the
        monotonic clock ends the wait if the wall clock is set back.
        """
        self._on_status("waiting", {"delay": delay})
        end, monotonic_end = now() + delay, time.monotonic() + delay
        while (remaining := min(end - now(), monotonic_end - time.monotonic())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(remaining, CLOCK_CHECK_INTERVAL))

    async def _run_socket(self, token: str | None) -> tuple[int, Frame | None]:
        """Open a socket and receive frames until it is closed."""
        async with connect(self._url, **self._options) as socket:
            self._outgoing = asyncio.Queue()
            self._renew_at = None
            self._abandoned = False
            tasks = [
                asyncio.create_task(self._write_frames(socket)),
                asyncio.create_task(self._keepalive(socket)),
            ]
            try:
                self.protocol.handle_open(token)
                with contextlib.suppress(ConnectionClosed):
                    async for text in socket:
                        self.protocol.handle_frame(json.loads(text))
                        if self._abandoned:
                            break
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        closing = self.protocol.closing
        code = closing["code"] if closing else socket.close_code
        return code or ABNORMAL_CLOSURE, closing

    async def _write_frames(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send(json.dumps(await self._outgoing.get()))

    async def _keepalive(self, socket: ClientConnection) -> None:
        """Send pings and renew the token; abort the socket if the server does not answer."""
        while self.protocol.tick():
            if self._renew_at is not None and now() >= self._renew_at:
                self._renew_at = None
                self._renewal = asyncio.create_task(self._renew_token())
            await asyncio.sleep(min(CLOCK_CHECK_INTERVAL, self._timeout / 4))
        socket.transport.abort()

    async def _renew_token(self) -> None:
        connection_id = self.protocol.connection_id
        try:
            token = await self._fetch_token()
        except Exception as error:
            # the connection continues, since the old token has not expired yet
            self._on_error(RealtimeError("not_refreshed", repr(error)))
            return
        if self.protocol.connected and self.protocol.connection_id == connection_id:
            self.protocol.authenticate(token)

    async def _fetch_token(self) -> str | None:
        token = self._token() if callable(self._token) else self._token
        if token is None or isinstance(token, str):
            return token
        return await token

    def _handle_auth_failure(self, error: RealtimeError) -> None:
        """Renew the token later; if there is no connection yet, try again on another one."""
        if self.protocol.connected:
            self._renew_at = now() + MIN_RENEWAL_DELAY
        else:
            frame = {"code": CloseCode.INTERNAL_ERROR, "retry_after_ms": error.retry_after_ms}
            self.protocol.closing = frame
            self._abandoned = True

    def _handle_authenticated(self, reply: Frame, renewed: bool) -> None:
        expires_at = reply.get("expires_at")
        if callable(self._token) and expires_at is not None:
            lifetime = datetime.fromisoformat(expires_at).timestamp() - now()
            self._renew_at = now() + max(MIN_RENEWAL_DELAY, RENEWAL_SHARE * lifetime)
        if not renewed:
            self._on_status("live", {})
