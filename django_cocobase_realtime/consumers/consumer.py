"""The consumer of a WebSocket.

It passes frames to the session (see ``protocol``), which decides what to do, and carries out the
effects that the session yields.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from ..auth.backends import AuthenticationUnavailable
from ..auth.client_ip import client_ip
from ..auth.throttling import authenticate_throttled
from ..conf import conf
from ..hub.drain import drain
from ..hub.hub import ABNORMAL_CLOSURE, Hub
from ..identity import Identity, account_of
from ..metrics import metrics
from ..options import Limits
from ..protocol import Session
from ..protocol import effects as do
from ..transport.connection import Connection
from ..transport.daphne import get_buffer_probe, set_close_timeout
from ..transport.input_limits import limit_input
from ..transport.writer import Writer
from ..utils.concurrency import run_shielded, set_owner
from ..utils.fair_queue import Owner
from ..utils.limits import ConnectionCount, CounterKey, connection_counters
from ..utils.project_code import DATABASE_UNAVAILABLE, ProjectCodeFailed
from ..wire import frames
from ..wire.codes import CloseCode, Retry
from . import closing, executor, failures
from .connection_rate import wait_until_allowed
from .connection_refusals import connection_refusals
from .draining import close_or_drop
from .message_reader import MessageReader
from .request_turns import Stage, wait_for_turn

# seconds that a client has to read the remaining frames before its connection is closed
FLUSH_TIMEOUT = 2.0
# seconds after a failed send in which the ASGI server usually reports that the socket is closed
FAILED_SEND_GRACE = 1.0
# `retry_after_ms` that is sent if the server has too many connections
RETRY_OVERLOADED_MS = 5000
# `retry_after_ms` that is sent if the database does not answer
RETRY_UNAVAILABLE_MS = 5000
# seconds that the server may take to check a credential, after which the client comes back later
AUTHENTICATION_TIMEOUT = 30.0
# close codes of clients that send too much
FLOOD_CODES = (CloseCode.RATE_LIMITED, CloseCode.TOO_MANY_BAD_REQUESTS)
# longest timer in seconds; event loops do not accept arbitrarily long ones
MAX_TIMER_SECONDS = 86400.0


class RealtimeConsumer(AsyncJsonWebsocketConsumer):
    """Serves one WebSocket that uses the native protocol.

    Unlike other consumers it has no channel of its own. All connections of a process share the
    hub's channel, and frames are sent by the connection's writer, so that fan-out does not pass
    through Channels' message loop.
    """

    channel_layer_alias = None  # type: ignore[assignment]  # Channels then creates no channel
    # decides what to do with the client's frames; created by `connect`
    session: Session

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection until it is closed, and then clean up."""
        self.scope = scope
        # the ASGI server's function that sends messages
        self.base_send: Any = send
        # IP address of the client
        self._address: str = client_ip(scope)
        # the counters of this process that include this connection
        self._count = ConnectionCount()
        # whether a frame of the client waits for its turn
        self._waits_for_turn = False
        # closes the connection if the client sends no `auth` in time
        self._auth_timer: asyncio.TimerHandle | None = None
        # closes the connection when its credential expires
        self._expiry_timer: asyncio.TimerHandle | None = None
        # closes the connection if the client sends nothing
        self._idle_timer: asyncio.TimerHandle | None = None
        # closes the connection after a failed send
        self._failure_timer: asyncio.TimerHandle | None = None
        # set when the connection is authenticated
        self._hub: Hub | None = None
        # the task that closes the socket
        self._closing: asyncio.Task[None] | None = None
        # reads the messages of the ASGI server
        self._reader = MessageReader(receive, send, self._reset_idle_timer)
        # closes the socket, and drops it if the client does not read
        self._closer = closing.SocketCloser(send)
        # the close code of the client
        self._code = ABNORMAL_CLOSURE
        try:
            # Channels' own loop would need two more tasks, to listen to a channel as well
            while True:
                await self.dispatch(await self._reader.next())
        except StopConsumer:
            pass
        except asyncio.CancelledError:
            if not self._closer.has_dropped:
                raise
        finally:
            try:
                await self._cleanup()
            finally:
                drain.remove(self._drain)

    async def dispatch(self, message: Any) -> None:
        """Handle a message from the ASGI server.

        Channels' own method also closes old database connections, which is not needed here, since
        `run_in_threadpool` does it.
        """
        match message["type"]:
            case "websocket.receive":
                await self._reader.handle(self.websocket_receive(message))
            case "websocket.connect":
                await self._reader.handle(self.websocket_connect(message))
            case "websocket.disconnect":
                self._code = int(message.get("code") or 1005)
                raise StopConsumer

    # opening and receiving

    async def connect(self) -> None:
        """Accept the connection; close it if this process or its address has too many."""
        await wait_for_turn(Stage.CONNECT)
        limits = conf.limits
        writer = Writer(
            self.base_send,
            max_bytes=limits.queue_bytes,
            max_messages=limits.queue_messages,
            on_overflow=self._on_overflow,
            on_failure=self._on_failed_send,
            is_buffer_full=get_buffer_probe(self.base_send),
        )
        connection = Connection(uuid.uuid4().hex, writer, self.close_soon)
        connection.address = self._address
        connection.owner = Owner(("address", self._address), connection.id)
        self.session = self.make_session(connection, limits)
        is_allowed = self._count.open(self._address, limits)
        if is_allowed:
            await self.wait_until_allowed(limits)
        drain.add(self._drain)
        limit_input(self.base_send)
        await self.accept()
        if not is_allowed:
            await self._run(self.session.close(CloseCode.OVERLOADED, RETRY_OVERLOADED_MS))
            return
        self._start_auth_timer()
        self._reset_idle_timer()

    async def wait_until_allowed(self, limits: Limits) -> None:
        """Wait if the client's address opens connections too fast."""
        await wait_until_allowed(self._address, limits)

    def make_session(self, connection: Connection, limits: Limits) -> Session:
        """Return the session that speaks this consumer's dialect of the protocol."""
        return Session(connection, limits, heartbeat=conf.heartbeat, now=time.monotonic())

    def is_clean_close(self, code: int) -> bool:
        """Return whether this close code of the client means that it will not come back."""
        return False

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Pass a frame to the session, and carry out the effects that it yields."""
        self._reset_idle_timer()
        self._waits_for_turn = True
        await wait_for_turn(Stage.REQUEST if self.session.identity else Stage.AUTHENTICATE)
        self._waits_for_turn = False
        try:
            await self._run(self.session.receive(text_data, time.monotonic()))
        except (*DATABASE_UNAVAILABLE, AuthenticationUnavailable) as error:
            failures.log_unavailable(self.session.connection, error)
            self.close_soon(CloseCode.UNAVAILABLE, RETRY_UNAVAILABLE_MS)
        except Exception:
            failures.log_failed_request(self.session.connection)
            self.close_soon(CloseCode.INTERNAL_ERROR)

    async def _cleanup(self) -> None:
        timers = self._auth_timer, self._expiry_timer, self._idle_timer, self._failure_timer
        for timer in timers:
            _cancel(timer)
        was_counted = self._count.is_counted
        self._count.keep_address()
        self._closer.end(self._count.close)
        if self._closing is not None:
            self._closing.cancel()
        if was_counted:
            if not self.session.closed:
                metrics.closes[None] += 1
            if self._hub is not None:
                lost = not self.is_clean_close(self._code)
                await self._hub.close(self.session.connection, lost=lost, code=self._code)
            await self.session.connection.writer.stop()

    # effects

    async def _run(self, steps: do.Steps) -> None:
        """Carry out effects, and pass each result back to the session, until there are no more.

        If code of the project raised, this is logged, and the exception is passed instead.
        """
        result: Any = None
        failure: ProjectCodeFailed | None = None
        try:
            while True:
                effect = steps.send(result) if failure is None else steps.throw(failure)
                result = failure = None
                try:
                    result = await self._execute(effect)
                except ProjectCodeFailed as error:
                    error.log()
                    failure = error
        except StopIteration:
            return

    async def _execute(self, effect: do.Effect) -> Any:
        """Carry out one effect and return its result."""
        connection = self.session.connection
        match effect:
            case do.Send(frame):
                connection.writer.push(frames.encode(frame))
                return None
            case do.Close(code, retry_after_ms):
                return await self._close(code, retry_after_ms)
            case do.Authenticate(token):
                return await self._authenticate(token)
            case do.AdmitConnection():
                return await self._admit()
        assert self._hub is not None
        match effect:
            case do.EnableBatching():
                connection.writer.enable_batching(self._hub.batcher)
            case do.ScheduleExpiry():
                self._schedule_expiry()
            case _:
                return await executor.execute(self._hub, connection, effect)
        return None

    @property
    def _identity(self) -> Identity:
        assert self.session.identity is not None
        return self.session.identity

    async def _authenticate(self, token: str | None) -> Identity | None:
        """Return the identity that a token proves, or None.

        Raises `AuthenticationUnavailable` after AUTHENTICATION_TIMEOUT. The client's time limit
        does not apply while the server works; if an authenticator failed, it begins again.
        """
        _cancel(self._auth_timer)
        self._auth_timer = None
        try:
            async with asyncio.timeout(AUTHENTICATION_TIMEOUT):
                return await authenticate_throttled(
                    token, self.scope, self._address, self.session.connection.owner.connection
                )
        except TimeoutError as error:
            raise AuthenticationUnavailable("The credential could not be checked.") from error
        except ProjectCodeFailed:
            if self.session.identity is None and self._closing is None:
                self._start_auth_timer()
            raise

    async def _admit(self) -> do.Admission | do.TooManyConnections:
        """Add the authenticated connection to the hub, unless its user has too many."""
        self._count.remove(CounterKey.UNAUTHENTICATED, self._address)
        identity = self._identity
        if identity.user_key is not None:
            user = (identity.project, identity.user_key)
            limit = self.session.limits.connections_per_user
            if connection_counters.count(CounterKey.USER, user) >= limit:
                delay_ms = connection_refusals.next_delay_ms(user, time.monotonic())
                return do.TooManyConnections(delay_ms)
            connection_refusals.forget(user)
            self._count.add(CounterKey.USER, user)
        # the hub is started only now, since a connection that is refused does not need it
        hub = self._hub = Hub.current()
        connection = self.session.connection
        connection.owner = Owner(account_of(identity, self._address), connection.id)
        set_owner(connection.owner)
        await hub.open(connection)
        return do.Admission(
            hub.topics.add_connection(connection), hub.rooms.add_connection(connection)
        )

    def _schedule_expiry(self) -> None:
        _cancel(self._expiry_timer)
        self._expiry_timer = None
        expires_at = self._identity.expires_at
        if expires_at is None:
            return
        seconds = (expires_at - datetime.now(UTC)).total_seconds()
        if seconds > MAX_TIMER_SECONDS:
            loop = asyncio.get_running_loop()
            self._expiry_timer = loop.call_later(MAX_TIMER_SECONDS, self._schedule_expiry)
        else:
            self._expiry_timer = self._start_timer(max(seconds, 0), self.session.expired)

    # closing

    def close_soon(self, code: CloseCode, retry_after_ms: int | None = None) -> None:
        """Begin to close the connection, from outside a request; drop frames from now on."""
        self.session.connection.writer.finish()
        self._start_closing(self.session.close(code, retry_after_ms))

    def _drain(self, retry_after_ms: int | None) -> None:
        """Begin to close, because the server will be stopped; with None, drop the socket."""
        close_or_drop(self._reader, self.base_send, self.close_soon, retry_after_ms)

    def _on_overflow(self) -> None:
        self.close_soon(CloseCode.SLOW_CONSUMER)

    def _on_failed_send(self, error: Exception) -> None:
        """Close the connection if its socket is still open although a send has failed.

        Otherwise the client would wait on a socket on which nothing is sent any more.
        """
        call_later = asyncio.get_running_loop().call_later
        self._failure_timer = call_later(FAILED_SEND_GRACE, self._close_failed, error)

    def _close_failed(self, error: Exception) -> None:
        failures.log_failed_send(self.session.connection, error)
        self.close_soon(CloseCode.INTERNAL_ERROR)

    def _start_closing(self, steps: do.Steps) -> None:
        if self._closing is not None:
            return
        # at once, so that the session ignores the frames that the client has sent already
        effect = next(steps, None)
        if effect is not None:
            self._reader.cancel_request()
            self._closing = asyncio.get_running_loop().create_task(self._execute(effect))

    async def _close(self, code: CloseCode, retry_after_ms: int | None) -> None:
        """Send the ``closing`` frame, remove the connection from the hub, and close the socket."""
        metrics.closes[code] += 1
        if code in FLOOD_CODES:
            self._reader.stop_reading()
        writer = self.session.connection.writer
        if not writer.closed:
            frame = self.session.closing(code, retry_after_ms)
            writer.finish(None if frame is None else frames.encode(frame))
            await writer.flush(FLUSH_TIMEOUT)
        await writer.stop()
        if self._hub is not None:
            lost = code.retry is not Retry.STOP
            await self._hub.close(self.session.connection, lost=lost, code=int(code))
        if code is CloseCode.SLOW_CONSUMER:
            set_close_timeout(self.base_send, closing.CLOSE_TIMEOUT)
        # continues if granian reports a disconnect before the client has read the close frame
        await run_shielded(self._closer.close(partial(self.close, int(code), code.reason)))

    # timers

    def _start_timer(
        self, seconds: float, make_steps: Callable[[], do.Steps]
    ) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        return loop.call_later(seconds, lambda: self._start_closing(make_steps()))

    def _start_auth_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._auth_timer = loop.call_later(self.session.limits.auth_timeout, self._end_auth_time)

    def _end_auth_time(self) -> None:
        if self._waits_for_turn:  # it may have sent `auth` in time
            self._start_auth_timer()
        else:
            self._start_closing(self.session.auth_timeout())

    def _reset_idle_timer(self) -> None:
        if self._count.is_counted and (seconds := self.session.limits.idle_timeout) is not None:
            _cancel(self._idle_timer)
            self._idle_timer = self._start_timer(seconds, self.session.idle)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
