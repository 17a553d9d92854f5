"""The connection of a client: opens sockets, and moves frames between them and the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ..wire.codes import CloseCode
from .backoff import Backoff
from .errors import RealtimeError, logger
from .handshake import DEFAULT_OPTIONS, HandshakeFailure
from .interfaces import Frame
from .protocol import ClientProtocol
from .tokens import TokenSource
from .validation import encode

# close code of a connection that ended without a close frame (RFC 6455, section 7.1.5)
ABNORMAL_CLOSURE = 1006
NOT_AUTHENTICATED = "The server accepts connections, but does not authenticate this client."
# a token is renewed after this share of the time until it expires
RENEWAL_SHARE = 0.8
# minimum in seconds before a token is renewed
MIN_RENEWAL_DELAY = 5.0
# seconds between two looks at the clock, which jumps if the machine was asleep
CLOCK_CHECK_INTERVAL = 1.0


def now() -> float:
    """Return seconds since 1970, of a clock that continues while the machine is asleep."""
    return time.time()


class Connection:
    """Keeps a client connected: opens a socket, and another one after each loss."""

    def __init__(
        self,
        url: str,
        *,
        tokens: TokenSource,
        timeout: float,
        random: Callable[[], float],
        options: Mapping[str, Any],
        debug: bool,
        on_status: Callable[[str, Mapping[str, Any]], None],
        on_error: Callable[[RealtimeError], None],
        on_terminated: Callable[[RealtimeError], None],
    ) -> None:
        self._url = url
        self._tokens = tokens
        # seconds that the server may take to accept a connection, and to answer
        self._timeout = timeout
        # options of `websockets.connect`
        self._options = {**DEFAULT_OPTIONS, "open_timeout": timeout, **options}
        # whether frames are logged
        self._debug = debug
        # whether the client was authenticated before, so that its address is right
        self._was_live = False
        # whether it was reported that the server does not authenticate; False after it does
        self._is_silence_reported = False
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
        # the event loop that `run` is called in
        self._loop: asyncio.AbstractEventLoop | None = None
        # handles frames; has the state that continues on the next socket
        self.protocol = ClientProtocol(
            send=lambda frame: self._outgoing.put_nowait(frame),
            call_later=self._call_later,
            on_authenticated=self._handle_authenticated,
            on_auth_failure=self._handle_auth_failure,
            on_error=on_error,
            timeout=timeout,
            clock=now,
        )

    async def run(self) -> None:
        """Connect, and reconnect after each loss, until cancelled or terminated."""
        self._loop = asyncio.get_running_loop()
        clock = asyncio.create_task(self._watch_clock())
        try:
            self._on_terminated(await self._run())
        except Exception as error:
            # without this, all that wait for the client would wait without end
            logger.exception("The client failed.")
            self._on_terminated(_connection_error("not_connected", error))
        finally:
            clock.cancel()
            if self._renewal is not None:
                self._renewal.cancel()

    async def _run(self) -> RealtimeError:
        """Stay connected; return the reason for which the client must not reconnect."""
        while True:
            self._on_status("connecting", {})
            result = await self._connect_once()
            connected_for = self.protocol.handle_disconnect()
            if isinstance(result, HandshakeFailure):
                if result.is_final and not self._was_live:
                    return result.error
                if result.is_reported:
                    self._on_error(result.error)
                else:
                    logger.warning("No connection to %s: %s", self._url, result.error.args[0])
                code, retry_after_ms, reason = ABNORMAL_CLOSURE, result.retry_after_ms, None
            else:
                code, closing = result
                retry_after_ms, reason = closing.get("retry_after_ms"), closing.get("reason")
            if code == CloseCode.PERMISSIONS_CHANGED:
                self.protocol.handle_permissions_changed()
            delay = self._backoff.next_delay(code, retry_after_ms, connected_for)
            if delay is None:
                return RealtimeError(code, reason or f"Closed by the server with {code}.")
            await self._wait_before_retry(delay)

    async def _connect_once(self) -> tuple[int, Frame] | HandshakeFailure:
        """Run one connection to its end; return the close code and the ``closing`` frame."""
        nothing: Frame = {}
        try:
            token = await self._tokens.fetch()
        except Exception as error:
            self._on_error(_connection_error("not_connected", error, "token"))
            return ABNORMAL_CLOSURE, nothing
        try:
            socket = await connect(self._url, **self._options)
        except Exception as error:
            return HandshakeFailure(error)
        try:
            return await self._run_socket(socket, token)
        except asyncio.CancelledError:
            self.protocol.handle_disconnect()
            raise
        except Exception as error:
            self._on_error(_connection_error("not_connected", error))
        return ABNORMAL_CLOSURE, nothing

    def _call_later(self, delay: float, callback: Callable[[], None]) -> object:
        return (self._loop or asyncio.get_running_loop()).call_later(delay, callback)

    async def _watch_clock(self) -> None:
        """Let broadcasts fail in time, also after the machine was asleep."""
        while True:
            self.protocol.handle_tick()
            await asyncio.sleep(CLOCK_CHECK_INTERVAL)

    async def _wait_before_retry(self, delay: float) -> None:
        """Wait for ``delay`` seconds, including time in which the machine is asleep.

        Two clocks are used: the wall clock continues while the machine is asleep, and the
        monotonic clock ends the wait if the wall clock is set back.
        """
        self._on_status("waiting", {"delay": delay})
        end, monotonic_end = now() + delay, time.monotonic() + delay
        while (remaining := min(end - now(), monotonic_end - time.monotonic())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(remaining, CLOCK_CHECK_INTERVAL))

    async def _run_socket(self, socket: ClientConnection, token: str | None) -> tuple[int, Frame]:
        """Receive frames until a socket is closed."""
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
                    frame = json.loads(text)
                    self._log("received", frame)
                    self.protocol.handle_frame(frame)
                    if self._abandoned:
                        break
        finally:
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
                # also after an exception; as a context manager, the socket would report a failure
                await socket.close()
            finally:
                # if the close was cancelled, too
                socket.transport.abort()
        closing = self.protocol.closing or {}
        return closing.get("code") or socket.close_code or ABNORMAL_CLOSURE, closing

    async def _write_frames(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                frame = await self._outgoing.get()
                self._log("sent", frame)
                await socket.send(encode(frame))

    def _log(self, direction: str, frame: Frame) -> None:
        if self._debug:
            shown = {**frame, "token": "…"} if "token" in frame else frame
            logger.debug("%s %s", direction, json.dumps(shown, ensure_ascii=False))

    async def _keepalive(self, socket: ClientConnection) -> None:
        """Send pings and renew the token; abort the socket if the server does not answer."""
        while self.protocol.tick():
            if self._renew_at is not None and now() >= self._renew_at:
                self._renew_at = None
                self._renewal = asyncio.create_task(self._renew_token())
            await asyncio.sleep(min(CLOCK_CHECK_INTERVAL, self._timeout / 4))
        socket.transport.abort()
        if not (self.protocol.connected or self._is_silence_reported):
            self._is_silence_reported = True
            self._on_error(RealtimeError("not_connected", NOT_AUTHENTICATED, source="connection"))

    async def _renew_token(self) -> None:
        connection_id = self.protocol.connection_id
        try:
            token = await self._tokens.fetch()
        except Exception as error:
            # the connection continues, since the old token has not expired yet
            self._on_error(_connection_error("not_refreshed", error, "token"))
            self._renew_at = now() + MIN_RENEWAL_DELAY
            return
        if self.protocol.connected and self.protocol.connection_id == connection_id:
            self.protocol.authenticate(token)

    def _handle_auth_failure(self, error: RealtimeError) -> None:
        """Renew the token later; if there is no connection yet, try again on another one."""
        if self.protocol.connected:
            self._renew_at = now() + MIN_RENEWAL_DELAY
        else:
            frame = {"code": CloseCode.INTERNAL_ERROR, "retry_after_ms": error.retry_after_ms}
            self.protocol.closing = frame
            self._abandoned = True

    def _handle_authenticated(self, reply: Frame, is_new: bool) -> None:
        expires_at = reply.get("expires_at")
        if self._tokens.is_renewable and expires_at is not None:
            # by the clock of the server, since that of this machine may be wrong
            sent_at = reply.get("now")
            server_time = now() if sent_at is None else _timestamp(sent_at)
            lifetime = _timestamp(expires_at) - server_time
            self._renew_at = now() + max(MIN_RENEWAL_DELAY, RENEWAL_SHARE * lifetime)
        self._was_live = True
        self._is_silence_reported = False
        if is_new:
            self._on_status("live", {"user": reply.get("user")})


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _connection_error(code: str, cause: Exception, source: str = "connection") -> RealtimeError:
    error = RealtimeError(code, str(cause) or repr(cause), source=source)
    error.__cause__ = cause
    return error
