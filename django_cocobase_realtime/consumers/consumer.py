"""The consumer of one WebSocket: it carries out what the session decides, and decides nothing."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.db import InterfaceError, OperationalError

from ..auth.backends import AuthenticationUnavailable
from ..auth.client_ip import client_ip
from ..auth.throttling import authenticate_throttled
from ..conf import Limits, conf
from ..hub.hub import Hub
from ..identity import Identity
from ..protocol import Session
from ..protocol import effects as do
from ..transport.connection import Connection
from ..transport.daphne import get_write_buffer_size, paused_reading, set_close_timeout
from ..transport.writer import Writer
from ..utils.limits import CounterKey, connection_counters
from ..wire import frames
from ..wire.codes import CloseCode, Retry
from . import executor

logger = logging.getLogger(__name__)

FLUSH_TIMEOUT = 2.0
"""Seconds that a closing connection has to read what it was sent."""
CLOSE_TIMEOUT = 60.0
"""Seconds that it has to read the close frame: a stalled client may still do so."""
RETRY_OVERLOADED_MS = 5000
"""``retry_after_ms`` of a server that has too many connections."""
RETRY_UNAVAILABLE_MS = 5000
"""``retry_after_ms`` while the database does not answer."""
MAX_TIMER_SECONDS = 86400.0
"""Event loops do not accept arbitrarily long timers."""


class RealtimeConsumer(AsyncJsonWebsocketConsumer):
    """One WebSocket in the protocol of the reference.

    It has no channel of its own. Events reach it through the hub's one channel per process and
    leave through its writer, so that fan-out never passes through Channels' message loop.
    """

    channel_layer_alias = None  # type: ignore[assignment]  # Channels: no layer, no channel
    session: Session

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection. However it ends, the hub and the counters are left clean."""
        self.scope = scope
        self.base_send: Any = send
        self._address: str = client_ip(scope)
        # what this connection was counted for
        self._counted: list[tuple[CounterKey, Any]] = []
        self._auth_timer: asyncio.TimerHandle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        # set once the connection is authenticated
        self._hub: Hub | None = None
        # the task that closes the socket
        self._closing: asyncio.Task[None] | None = None
        # the task of this call
        self._main = asyncio.current_task()
        # the socket did not even accept a close
        self._abandoned = False
        # counted among the connections of this process
        self._admitted = False
        # the client said that it will not come back
        self._clean_close = False
        try:
            # Channels' own loop would also listen to a channel, with two tasks
            while True:
                await self.dispatch(await receive())
        except StopConsumer:
            pass
        except asyncio.CancelledError:
            if not self._abandoned:
                raise
        finally:
            await self._cleanup()

    async def dispatch(self, message: Any) -> None:
        """Handle a message of the server.

        Channels' own method also closes old database connections; `run_in_threadpool` does that.
        """
        match message["type"]:
            case "websocket.receive":
                await self.websocket_receive(message)
            case "websocket.connect":
                await self.websocket_connect(message)
            case "websocket.disconnect":
                self._clean_close = self.is_clean_close(int(message.get("code") or 1005))
                raise StopConsumer

    # the life of a connection

    async def connect(self) -> None:
        """Accept the connection, within the limits of this process and of its address."""
        await self.accept()
        limits = conf.limits
        writer = Writer(
            self.base_send,
            max_bytes=limits.queue_bytes,
            max_messages=limits.queue_messages,
            on_overflow=self._on_overflow,
            get_buffer_size=get_write_buffer_size(self.base_send),
        )
        connection = Connection(uuid.uuid4().hex, writer, self.close_soon)
        self.session = self.make_session(connection, limits)
        counters = connection_counters
        if (
            counters.total >= limits.connections_per_process
            or counters.count(CounterKey.ADDRESS, self._address) >= limits.connections_per_address
            or counters.count(CounterKey.UNAUTHENTICATED, self._address)
            >= limits.unauthenticated_per_address
        ):
            await self._run(self.session.close(CloseCode.OVERLOADED, RETRY_OVERLOADED_MS))
            return
        counters.total += 1
        self._admitted = True
        self._increment(CounterKey.ADDRESS, self._address)
        self._increment(CounterKey.UNAUTHENTICATED, self._address)
        self._auth_timer = self._start_timer(limits.auth_timeout, self.session.auth_timeout)
        self._reset_idle_timer()

    def make_session(self, connection: Connection, limits: Limits) -> Session:
        """Return the session of this consumer's dialect."""
        return Session(connection, limits, heartbeat=conf.heartbeat, now=time.monotonic())

    def is_clean_close(self, code: int) -> bool:
        """Return whether a client that closes with this code will not come back."""
        return False

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Hand a frame to the session, and carry out what it decides."""
        self._reset_idle_timer()
        try:
            with paused_reading(self.base_send):
                await self._run(self.session.receive(text_data, time.monotonic()))
        except (OperationalError, InterfaceError, AuthenticationUnavailable) as error:
            logger.warning("The database is unavailable: %r", error.__cause__ or error)
            self.close_soon(CloseCode.UNAVAILABLE, RETRY_UNAVAILABLE_MS)
        except Exception:
            logger.exception("A request failed.")
            self.close_soon(CloseCode.INTERNAL_ERROR)

    async def _cleanup(self) -> None:
        for timer in (self._auth_timer, self._expiry_timer, self._idle_timer):
            _cancel(timer)
        for kind, key in self._counted:
            connection_counters.decrement(kind, key)
        if self._closing is not None and not self._abandoned:
            self._closing.cancel()
        if self._admitted:
            connection_counters.total -= 1
            if self._hub is not None:
                await self._hub.close(self.session.connection, lost=not self._clean_close)
            await self.session.connection.writer.stop()

    # effects

    async def _run(self, steps: do.Steps) -> None:
        """Carry out effects until the session has no more."""
        result: Any = None
        try:
            while True:
                result = await self._execute(steps.send(result))
        except StopIteration:
            return

    async def _execute(self, effect: do.Effect) -> Any:
        connection = self.session.connection
        match effect:
            case do.Send(frame):
                connection.writer.push(frames.encode(frame))
                return None
            case do.Close(code, retry_after_ms):
                return await self._close(code, retry_after_ms)
            case do.Authenticate(token):
                return await authenticate_throttled(token, self.scope, self._address)
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

    async def _admit(self) -> do.Admission | None:
        self._decrement(CounterKey.UNAUTHENTICATED, self._address)
        _cancel(self._auth_timer)
        self._auth_timer = None
        identity = self._identity
        if identity.user_key is not None:
            user = (identity.project, identity.user_key)
            limit = self.session.limits.connections_per_user
            if connection_counters.count(CounterKey.USER, user) >= limit:
                return None
            self._increment(CounterKey.USER, user)
        # not earlier: refused connections cost the hub nothing
        hub = self._hub = Hub.current()
        connection = self.session.connection
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
        """Close from outside a request (the hub, a full queue). From now on, nothing is sent."""
        self.session.connection.writer.finish()
        self._start_closing(self.session.close(code, retry_after_ms))

    def _on_overflow(self) -> None:
        self.close_soon(CloseCode.SLOW_CONSUMER)

    def _start_closing(self, steps: do.Steps) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._run(steps))

    async def _close(self, code: CloseCode, retry_after_ms: int | None) -> None:
        writer = self.session.connection.writer
        if not writer.closed:
            frame = self.session.closing(code, retry_after_ms)
            writer.finish(None if frame is None else frames.encode(frame))
            await writer.flush(FLUSH_TIMEOUT)
        await writer.stop()
        if self._hub is not None:
            lost = code.retry is not Retry.STOP
            await self._hub.close(self.session.connection, lost=lost)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if code is CloseCode.SLOW_CONSUMER:
                    set_close_timeout(self.base_send, CLOSE_TIMEOUT)
                await self.close(int(code), code.reason)
        except TimeoutError:
            self._abandon()
        except Exception as error:
            logger.debug("The socket was gone before it was closed: %r", error)

    def _abandon(self) -> None:
        """Leave a socket that does not accept a close: the server drops it when we return."""
        self._abandoned = True
        if self._main is not None:
            self._main.cancel()

    # timers and counters

    def _start_timer(
        self, seconds: float, make_steps: Callable[[], do.Steps]
    ) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._on_timer, make_steps)

    def _on_timer(self, make_steps: Callable[[], do.Steps]) -> None:
        self._start_closing(make_steps())

    def _reset_idle_timer(self) -> None:
        seconds = self.session.limits.idle_timeout
        if seconds is not None and self._admitted:
            _cancel(self._idle_timer)
            self._idle_timer = self._start_timer(seconds, self.session.idle)

    def _increment(self, kind: CounterKey, key: Any) -> None:
        connection_counters.increment(kind, key)
        self._counted.append((kind, key))

    def _decrement(self, kind: CounterKey, key: Any) -> None:
        if (kind, key) in self._counted:
            self._counted.remove((kind, key))
            connection_counters.decrement(kind, key)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
