"""The consumer of WebSockets of the published Cocobase SDKs.

If an SDK is rejected, it reconnects every second without end, because it resets its retry counter
each time a socket opens. Therefore a *gate* first reads one frame and rejects known mistakes
cheaply. Only then are a consumer, a session and a writer created.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from ..auth.client_ip import client_ip
from ..auth.throttling import auth_throttle
from ..conf import conf
from ..hub.drain import drain
from ..metrics import metrics
from ..options import Limits
from ..protocol import SdkSession, Session
from ..transport.connection import Connection
from ..transport.daphne import paused_reading
from ..types import Message, Receive, Send
from ..utils.limits import CounterKey, connection_counters
from ..wire import frames, sdk_frames
from ..wire.codes import CloseCode
from .connection_rate import wait_until_allowed
from .consumer import RealtimeConsumer

# encoded frames of refusals
_NO_KEY = frames.encode(sdk_frames.NO_KEY)
_BAD_KEY = frames.encode(sdk_frames.BAD_KEY)
_TIMEOUT = frames.encode(sdk_frames.closing(CloseCode.AUTH_TIMEOUT))


class _FirstFrame(msgspec.Struct):
    """The keys of a client's first frame that the gate reads."""

    # used by SDKs
    api_key: Any = None
    # used by some versions instead
    token: Any = None


_decoder = msgspec.json.Decoder(_FirstFrame)


class SdkConsumer(RealtimeConsumer):
    """Serves one WebSocket of an SDK, which is for a collection, a room or the whole project."""

    def make_session(self, connection: Connection, limits: Limits) -> Session:
        """Return a session in the SDKs' dialect, for the collection or room in the URL path."""
        route = self.scope["url_route"]["kwargs"]
        return SdkSession(
            connection,
            limits,
            dialect=f"sdk.{route['kind']}",
            name=route.get("name", ""),
            heartbeat=conf.heartbeat,
            now=time.monotonic(),
        )

    async def wait_until_allowed(self, limits: Limits) -> None:
        """Do nothing: the gate has waited already."""

    async def accept(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the gate has accepted the socket already."""

    def is_clean_close(self, code: int) -> bool:
        """Return True for a normal close, which is the only way in which an SDK leaves a room."""
        return code in (1000, 1005)


async def serve(scope: Any, receive: Receive, send: Send) -> None:
    """Serve one connection, if its first frame passes the gate."""
    first_message = await _gate(scope, receive, send)
    if first_message is None:
        return
    # messages that the consumer has not seen yet; the last one comes first
    unread: list[Any] = [first_message, {"type": "websocket.connect"}]

    async def receive_or_repeat() -> Any:
        return unread.pop() if unread else await receive()

    await SdkConsumer()(scope, receive_or_repeat, send)


async def _gate(scope: Any, receive: Receive, send: Send) -> Message | None:
    """Accept the socket, and return the message with the first frame.

    Returns None if the connection was refused, or closed by the client.
    """
    address = client_ip(scope)
    limits = conf.limits
    await receive()
    if (
        connection_counters.total >= limits.connections_per_process
        or connection_counters.count(CounterKey.UNAUTHENTICATED, address)
        >= limits.unauthenticated_per_address
    ):
        code = CloseCode.OVERLOADED
        await send({"type": "websocket.accept"})
        await _refuse(send, frames.encode(sdk_frames.closing(code)), code)
        return None
    connection_counters.total += 1
    connection_counters.increment(CounterKey.UNAUTHENTICATED, address)
    try:
        await wait_until_allowed(address, limits)
        await send({"type": "websocket.accept"})
        try:
            message = await _receive_first(receive, limits.auth_timeout)
        except TimeoutError:
            if drain.is_draining:
                await send({"type": "websocket.close", "code": int(CloseCode.DRAINING)})
            else:
                await _refuse(send, _TIMEOUT, CloseCode.AUTH_TIMEOUT)
            return None
        if message["type"] != "websocket.receive":
            return None
        refusal = _known_problem(message.get("text"), limits)
        if refusal is None:
            return message
        delay = auth_throttle.delay(address, time.monotonic(), limits)
        if delay:
            with paused_reading(send):
                await asyncio.sleep(delay)
        await _refuse(send, refusal, CloseCode.BAD_CREDENTIAL)
        return None
    finally:
        connection_counters.total -= 1
        connection_counters.decrement(CounterKey.UNAUTHENTICATED, address)


async def _receive_first(receive: Receive, seconds: float) -> Message:
    """Return the first message. Raises ``TimeoutError``, also if the server will be stopped."""
    async with asyncio.timeout(seconds) as waiting:

        def end(retry_after_ms: int | None) -> None:
            waiting.reschedule(0)

        drain.add(end)
        try:
            return await receive()
        finally:
            drain.remove(end)


def _known_problem(text: str | None, limits: Limits) -> str | None:
    """Return the frame that refuses a first frame which is known to be wrong, or None.

    All other mistakes are left to the session.
    """
    if text is None or len(text) > limits.auth_bytes:
        return None
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
    metrics.closes[code] += 1
    await send({"type": "websocket.send", "text": text})
    await send({"type": "websocket.close", "code": int(code)})  # SDKs do not read the reason
