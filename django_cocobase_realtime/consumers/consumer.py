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

from ..auth.attempt import attempt
from ..auth.backends import AuthenticationUnavailable
from ..auth.client_ip import client_address
from ..conf import Limits, conf
from ..hub.hub import Hub
from ..identity import Identity
from ..protocol import Session
from ..protocol import effects as do
from ..transport.connection import Connection
from ..transport.daphne import held_back, unsent_of, wait_for_close
from ..transport.writer import Writer
from ..utils.limits import Cap, caps
from ..wire import frames
from ..wire.codes import CloseCode, Retry
from . import collection_effects, room_effects

logger = logging.getLogger(__name__)

FLUSH_TIMEOUT = 2.0  # seconds a closing connection may take to read what it was sent
CLOSE_TIMEOUT = 60.0  # and to take the close itself: a client that stalled may yet read it
RETRY_OVERLOADED_MS = 5000
RETRY_UNAVAILABLE_MS = 5000
LONGEST_TIMER = 86400.0  # seconds; event loops take no arbitrarily long ones


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
        self._address: str = client_address(scope)
        self._counted: list[tuple[Cap, Any]] = []
        self._auth_timer: asyncio.TimerHandle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._hub: Hub | None = None
        self._ending: asyncio.Task[None] | None = None
        self._main = asyncio.current_task()
        self._given_up = False
        self._admitted = False
        self._goodbye = False
        try:
            # no channel to listen to as well: Channels' own loop would take two tasks
            while True:
                await self.dispatch(await receive())
        except StopConsumer:
            pass
        except asyncio.CancelledError:
            if not self._given_up:
                raise
        finally:
            await self._leave()

    async def dispatch(self, message: Any) -> None:
        """Channels' own looks after database connections at each message; workers do it here."""
        match message["type"]:
            case "websocket.receive":
                await self.websocket_receive(message)
            case "websocket.connect":
                await self.websocket_connect(message)
            case "websocket.disconnect":
                self._goodbye = self.said_goodbye(int(message.get("code") or 1005))
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
            on_overflow=self._stalled,
            unsent=unsent_of(self.base_send),
        )
        connection = Connection(uuid.uuid4().hex, writer, self._end)
        self.session = self.make_session(connection, limits)
        if (
            caps.total >= limits.connections_per_process
            or caps.count(Cap.ADDRESS, self._address) >= limits.connections_per_address
            or caps.count(Cap.UNAUTHENTICATED, self._address) >= limits.unauthenticated_per_address
        ):
            await self._perform_all(self.session.close(CloseCode.OVERLOADED, RETRY_OVERLOADED_MS))
            return
        caps.total += 1
        self._admitted = True
        self._count(Cap.ADDRESS, self._address)
        self._count(Cap.UNAUTHENTICATED, self._address)
        self._auth_timer = self._timer(limits.auth_timeout, self.session.auth_timeout)
        self._touch()

    def make_session(self, connection: Connection, limits: Limits) -> Session:
        """The conversation of this connection's dialect."""
        return Session(connection, limits, heartbeat=conf.heartbeat, now=time.monotonic())

    def said_goodbye(self, code: int) -> bool:
        """Whether a client that closes with this code is not about to come back."""
        return False

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """A frame: the session decides, the consumer does."""
        self._touch()
        try:
            with held_back(self.base_send):
                await self._perform_all(self.session.receive(text_data, time.monotonic()))
        except (OperationalError, InterfaceError, AuthenticationUnavailable) as error:
            logger.warning("The database is unavailable: %r", error.__cause__ or error)
            self._end(CloseCode.UNAVAILABLE, RETRY_UNAVAILABLE_MS)
        except Exception:
            logger.exception("A request failed.")
            self._end(CloseCode.INTERNAL_ERROR)

    async def _leave(self) -> None:
        for timer in (self._auth_timer, self._expiry_timer, self._idle_timer):
            _cancel(timer)
        for cap, key in self._counted:
            caps.release(cap, key)
        if self._ending is not None and not self._given_up:
            self._ending.cancel()
        if self._admitted:
            caps.total -= 1
            if self._hub is not None:
                await self._hub.close(self.session.connection, lost=not self._goodbye)
            await self.session.connection.writer.stop()

    # effects

    async def _perform_all(self, steps: do.Steps) -> None:
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
            case do.Admit():
                return await self._admit()
            case do.Batch():
                connection.writer.take_batches(self._present.batches)
            case do.Expire():
                self._watch_expiry()
            case do.Authorize() | do.Prepare() | do.Attach() | do.Detach() | do.Reconsider():
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
        return await attempt(token, self.scope, self._address)

    async def _admit(self) -> bool:
        self._release(Cap.UNAUTHENTICATED, self._address)
        _cancel(self._auth_timer)
        self._auth_timer = None
        identity = self._identity
        if identity.user_key is not None:
            key = (identity.project, identity.user_key)
            if caps.count(Cap.USER, key) >= self.session.limits.connections_per_user:
                return False
            self._count(Cap.USER, key)
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
        if left > LONGEST_TIMER:
            loop = asyncio.get_running_loop()
            self._expiry_timer = loop.call_later(LONGEST_TIMER, self._watch_expiry)
        else:
            self._expiry_timer = self._timer(max(left, 0), self.session.expired)

    # closing

    def _end(self, code: CloseCode, retry_after_ms: int | None = None) -> None:
        """Close from outside a request: the hub, a full queue. At once: not a byte follows."""
        self.session.connection.writer.finish()
        self._start(self.session.close(code, retry_after_ms))

    def _stalled(self) -> None:
        self._end(CloseCode.SLOW_CONSUMER)

    def _start(self, steps: do.Steps) -> None:
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._perform_all(steps))

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
                    wait_for_close(self.base_send, CLOSE_TIMEOUT)
                await self.close(int(code), code.reason)
        except TimeoutError:
            self._give_up()
        except Exception as error:
            logger.debug("The socket was gone before it was closed: %r", error)

    def _give_up(self) -> None:
        """Leave a socket that takes not even a close: the server drops it when we return."""
        self._given_up = True
        if self._main is not None:
            self._main.cancel()

    # timers and counts

    def _timer(self, seconds: float, steps: Callable[[], do.Steps]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._due, steps)

    def _due(self, steps: Callable[[], do.Steps]) -> None:
        self._start(steps())

    def _touch(self) -> None:
        seconds = self.session.limits.idle_timeout
        if seconds is not None and self._admitted:
            _cancel(self._idle_timer)
            self._idle_timer = self._timer(seconds, self.session.idle)

    def _count(self, cap: Cap, key: Any) -> None:
        caps.take(cap, key)
        self._counted.append((cap, key))

    def _release(self, cap: Cap, key: Any) -> None:
        if (cap, key) in self._counted:
            self._counted.remove((cap, key))
            caps.release(cap, key)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
