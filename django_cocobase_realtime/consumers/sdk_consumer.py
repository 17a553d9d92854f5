"""The sockets of the published SDKs: a cheap gate, then the same consumer with another session.

A rejected SDK reconnects every second for ever: its retry counter starts anew whenever a socket
opens. So what is known to be wrong is refused here, before anything is made for the connection.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from ..auth.client_ip import client_ip
from ..auth.throttling import auth_throttle
from ..conf import Limits, conf
from ..protocol import SdkSession, Session
from ..transport.connection import Connection
from ..transport.daphne import paused_reading
from ..types import Message, Receive, Send
from ..utils.limits import CounterKey, connection_counters
from ..wire import frames, sdk_frames
from ..wire.codes import CloseCode
from .consumer import RealtimeConsumer

_NO_KEY = frames.encode(sdk_frames.NO_KEY)
_BAD_KEY = frames.encode(sdk_frames.BAD_KEY)
_TIMEOUT = frames.encode(sdk_frames.closing(CloseCode.AUTH_TIMEOUT))


class _FirstFrame(msgspec.Struct):
    """As much of a first frame as the gate looks at."""

    api_key: Any = None
    token: Any = None


_decoder = msgspec.json.Decoder(_FirstFrame)


class SdkConsumer(RealtimeConsumer):
    """One WebSocket of an SDK: for a collection, a room, or the project's broadcast."""

    def make_session(self, connection: Connection, limits: Limits) -> Session:
        """A session in the SDKs' words, for what the path names."""
        named = self.scope["url_route"]["kwargs"]
        return SdkSession(
            connection,
            limits,
            dialect=f"sdk.{named['kind']}",
            name=named.get("name", ""),
            heartbeat=conf.heartbeat,
            now=time.monotonic(),
        )

    async def accept(self, *args: Any, **kwargs: Any) -> None:
        """The gate has accepted."""

    def is_clean_close(self, code: int) -> bool:
        """SDKs have no word for leaving but to close the socket."""
        return code in (1000, 1005)


async def serve(scope: Any, receive: Receive, send: Send) -> None:
    """Serve one connection, if it passes the gate."""
    first = await _gate(scope, receive, send)
    if first is None:
        return
    waiting: list[Any] = [first, {"type": "websocket.connect"}]

    async def receive_again() -> Any:
        return waiting.pop() if waiting else await receive()

    await SdkConsumer()(scope, receive_again, send)


async def _gate(scope: Any, receive: Receive, send: Send) -> Message | None:
    """Accept, and wait for the first frame; None where that was the end."""
    address = client_ip(scope)
    limits = conf.limits
    await receive()
    await send({"type": "websocket.accept"})
    if (
        connection_counters.total >= limits.connections_per_process
        or connection_counters.count(CounterKey.UNAUTHENTICATED, address)
        >= limits.unauthenticated_per_address
    ):
        code = CloseCode.OVERLOADED
        await _refuse(send, frames.encode(sdk_frames.closing(code)), code)
        return None
    connection_counters.total += 1
    connection_counters.increment(CounterKey.UNAUTHENTICATED, address)
    try:
        try:
            async with asyncio.timeout(limits.auth_timeout):
                message = await receive()
        except TimeoutError:
            await _refuse(send, _TIMEOUT, CloseCode.AUTH_TIMEOUT)
            return None
        if message["type"] != "websocket.receive":
            return None
        reason = _known_problem(message.get("text"), limits)
        if reason is None:
            return message
        delay = auth_throttle.delay(address, time.monotonic(), limits)
        if delay:
            with paused_reading(send):
                await asyncio.sleep(delay)
        await _refuse(send, reason, CloseCode.BAD_CREDENTIAL)
        return None
    finally:
        connection_counters.total -= 1
        connection_counters.decrement(CounterKey.UNAUTHENTICATED, address)


def _known_problem(text: str | None, limits: Limits) -> str | None:
    """What is wrong with a first frame as far as is known already; None for nothing."""
    if text is None or len(text) > limits.auth_bytes:
        return None  # the session says what it thinks of it
    try:
        first = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    token = first.api_key or first.token
    if not token:
        return _NO_KEY
    if isinstance(token, str) and auth_throttle.is_known_bad(token, time.monotonic()):
        return _BAD_KEY
    return None


async def _refuse(send: Send, text: str, code: CloseCode) -> None:
    await send({"type": "websocket.send", "text": text})
    await send({"type": "websocket.close", "code": int(code)})  # no SDK reads reasons
