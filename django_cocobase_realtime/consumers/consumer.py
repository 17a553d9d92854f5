"""The consumer: a shell that carries out what the session wants and decides nothing."""

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
from . import collection_effects, room_effects

logger = logging.getLogger(__name__)

FLUSH_TIMEOUT = 2.0  # seconds a closing connection may take to read what it was sent
CLOSE_TIMEOUT = 60.0  # and to take the close itself: a client that stalled may yet read it
RETRY_OVERLOADED_MS = 5000
RETRY_UNAVAILABLE_MS = 5000
MAX_TIMER_SECONDS = 86400.0  # seconds; event loops take no arbitrarily long ones


class RealtimeConsumer(AsyncJsonWebsocketConsumer):
    """One WebSocket of the native dialect.

    It has no channel of its own: events reach it through the hub's one channel a process, and
    leave through its writer, so that fan-out never passes through Channels' message loop.
    """

    channel_layer_alias = None  # type: ignore[assignment]  # Channels: no layer, no channel
    session: Session

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection. Leaves the hub and the caps behind clean, however it ends."""
        self.scope = scope
        self.base_send: Any = send
        self._address: str = client_ip(scope)
        self._counted: list[tuple[CounterKey, Any]] = []
        self._auth_timer: asyncio.TimerHandle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._hub: Hub | None = None
        self._ending: asyncio.Task[None] | None = None
        self._main = asyncio.current_task()
        self._abandoned = False
        self._admitted = False
        self._clean_close = False
        try:
            # no channel to listen to as well: Channels' own loop would take two tasks
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
        """Channels' own looks after database connections at each message; workers do it here."""
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
        """Accept, within the caps of this process and of this address."""
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
        if (
            connection_counters.total >= limits.connections_per_process
            or connection_counters.count(CounterKey.ADDRESS, self._address)
            >= limits.connections_per_address
            or connection_counters.count(CounterKey.UNAUTHENTICATED, self._address)
            >= limits.unauthenticated_per_address
        ):
            await self._run(self.session.close(CloseCode.OVERLOADED, RETRY_OVERLOADED_MS))
            return
        connection_counters.total += 1
        self._admitted = True
        self._increment(CounterKey.ADDRESS, self._address)
        self._increment(CounterKey.UNAUTHENTICATED, self._address)
        self._auth_timer = self._timer(limits.auth_timeout, self.session.auth_timeout)
        self._reset_idle_timer()

    def make_session(self, connection: Connection, limits: Limits) -> Session:
        """The conversation of this connection's dialect."""
        return Session(connection, limits, heartbeat=conf.heartbeat, now=time.monotonic())

    def is_clean_close(self, code: int) -> bool:
        """Whether a client that closes with this code is not about to come back."""
        return False

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """A frame: the session decides, the consumer does."""
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
        for cap, key in self._counted:
            connection_counters.decrement(cap, key)
        if self._ending is not None and not self._abandoned:
            self._ending.cancel()
        if self._admitted:
            connection_counters.total -= 1
            if self._hub is not None:
                await self._hub.close(self.session.connection, lost=not self._clean_close)
            await self.session.connection.writer.stop()

    # effects

    async def _run(self, steps: do.Steps) -> None:
        result: Any = None
        try:
            while True:
                result = await self._perform(steps.send(result))
        except StopIteration:
            return

    async def _perform(self, effect: do.Effect) -> Any:
        connection = self.session.connection
        match effect:
            case do.Send(frame):
                connection.writer.push(frames.encode(frame))
            case do.Close(code, retry_after_ms):
                await self._close(code, retry_after_ms)
            case do.Authenticate(token):
                return await self._authenticate(token)
            case do.AdmitConnection():
                return await self._admit()
            case do.EnableBatching():
                connection.writer.enable_batching(self._present.batcher)
            case do.ScheduleExpiry():
                self._watch_expiry()
            case (
                do.AuthorizeCollection()
                | do.OpenTopic()
                | do.AttachSubscription()
                | do.DetachSubscription()
                | do.Reauthorize()
            ):
                return await collection_effects.perform(self._present, connection, effect)
            case _:
                return await room_effects.perform(self._present, connection, effect)
        return None

    @property
    def _present(self) -> Hub:
        assert self._hub is not None
        return self._hub

    @property
    def _identity(self) -> Identity:
        assert self.session.identity is not None
        return self.session.identity

    async def _authenticate(self, token: str | None) -> Identity | None:
        return await authenticate_throttled(token, self.scope, self._address)

    async def _admit(self) -> bool:
        self._decrement(CounterKey.UNAUTHENTICATED, self._address)
        _cancel(self._auth_timer)
        self._auth_timer = None
        identity = self._identity
        if identity.user_key is not None:
            key = (identity.project, identity.user_key)
            if (
                connection_counters.count(CounterKey.USER, key)
                >= self.session.limits.connections_per_user
            ):
                return False
            self._increment(CounterKey.USER, key)
        # only now: whoever is refused costs the hub nothing
        self._hub = Hub.current()
        await self._hub.open(self.session.connection)
        return True

    def _watch_expiry(self) -> None:
        _cancel(self._expiry_timer)
        self._expiry_timer = None
        expires_at = self._identity.expires_at
        if expires_at is None:
            return
        left = (expires_at - datetime.now(UTC)).total_seconds()
        if left > MAX_TIMER_SECONDS:
            loop = asyncio.get_running_loop()
            self._expiry_timer = loop.call_later(MAX_TIMER_SECONDS, self._watch_expiry)
        else:
            self._expiry_timer = self._timer(max(left, 0), self.session.expired)

    # closing

    def close_soon(self, code: CloseCode, retry_after_ms: int | None = None) -> None:
        """Close from outside a request: the hub, a full queue. At once: not a byte follows."""
        self.session.connection.writer.finish()
        self._start_closing(self.session.close(code, retry_after_ms))

    def _on_overflow(self) -> None:
        self.close_soon(CloseCode.SLOW_CONSUMER)

    def _start_closing(self, steps: do.Steps) -> None:
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._run(steps))

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
        """Leave a socket that takes not even a close: the server drops it when we return."""
        self._abandoned = True
        if self._main is not None:
            self._main.cancel()

    # timers and counts

    def _timer(self, seconds: float, steps: Callable[[], do.Steps]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._on_timer, steps)

    def _on_timer(self, steps: Callable[[], do.Steps]) -> None:
        self._start_closing(steps())

    def _reset_idle_timer(self) -> None:
        seconds = self.session.limits.idle_timeout
        if seconds is not None and self._admitted:
            _cancel(self._idle_timer)
            self._idle_timer = self._timer(seconds, self.session.idle)

    def _increment(self, cap: CounterKey, key: Any) -> None:
        connection_counters.increment(cap, key)
        self._counted.append((cap, key))

    def _decrement(self, cap: CounterKey, key: Any) -> None:
        if (cap, key) in self._counted:
            self._counted.remove((cap, key))
            connection_counters.decrement(cap, key)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
