"""Flow control for daphne.

daphne's ``send`` does not wait until the client has read, and daphne reads from clients without a
limit. The functions here find the Twisted transport behind ``send`` by its attributes. If it is
not found (with another server, a wrapped ``send``, or TLS in the process), they do nothing, and
only the acks of the client limit what is sent to it (see `writer.AckWindow`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

# number of unsent bytes above which daphne's buffer is full, as in uvicorn
HIGH_WATER_BYTES = 64 * 1024
# bytes that are read from a socket at a time; while autobahn parses thousands of small frames, the
# event loop does nothing else
READ_BYTES = 2048


def get_buffer_probe(send: Any) -> Callable[[], bool] | None:
    """Return a function that returns whether the server's buffer is full; None if unknown.

    In daphne 4, ``send`` is bound to a protocol, whose Twisted transport has the unsent bytes.
    """
    transport: Any = getattr(find_protocol(send), "transport", None)
    if not all(hasattr(transport, name) for name in ("dataBuffer", "offset", "_tempDataLen")):
        return None

    def is_full() -> bool:
        unsent = len(transport.dataBuffer) - int(transport.offset) + int(transport._tempDataLen)
        return unsent > HIGH_WATER_BYTES

    return is_full


def get_pausable_transport(send: Any) -> Any:
    """Return the transport with ``pauseProducing`` and ``resumeProducing``; None if unknown."""
    transport: Any = getattr(find_protocol(send), "transport", None)
    if all(hasattr(transport, name) for name in ("pauseProducing", "resumeProducing")):
        return transport
    return None


@contextmanager
def paused_reading(send: Any) -> Iterator[None]:
    """Stop reading from the socket while the block waits.

    daphne queues the messages of a client without a limit. A client that sends many of them while
    one takes long would fill the memory.
    """
    transport = get_pausable_transport(send)
    if transport is None:
        yield
        return
    paused = False

    def pause() -> None:
        nonlocal paused
        paused = True
        transport.pauseProducing()

    # in the next iteration of the event loop, because most blocks have ended by then
    handle = asyncio.get_running_loop().call_soon(pause)
    try:
        yield
    finally:
        handle.cancel()
        if paused:
            transport.resumeProducing()


def limit_reads(send: Any) -> None:
    """Let the server read at most `READ_BYTES` from the socket at a time."""
    transport: Any = getattr(find_protocol(send), "transport", None)
    if hasattr(transport, "bufferSize"):
        transport.bufferSize = READ_BYTES


def set_close_timeout(send: Any, seconds: float) -> None:
    """Let the server wait ``seconds`` for the client's answer to a close.

    autobahn, which daphne uses, drops the socket after one second. A client that reads slowly
    would not receive the close frame, which comes after the unread data.
    """
    protocol = find_protocol(send)
    if hasattr(protocol, "closeHandshakeTimeout"):
        protocol.closeHandshakeTimeout = seconds


def deny_handshake(send: Any, status: int, reason: str, headers: dict[str, str]) -> bool:
    """Answer a WebSocket handshake with an HTTP status; return False if that is not possible.

    daphne can deny a handshake with 403 only, which proxies do not repeat on another server.
    """
    protocol: Any = find_protocol(send)
    names = ("failHandshake", "handshake_deferred")
    if not all(hasattr(protocol, name) for name in names):
        return False
    server: Any = getattr(protocol, "server", None)
    if not hasattr(server, "protocol_disconnected"):
        return False
    del protocol.handshake_deferred
    protocol.failHandshake(reason, status, list(headers.items()))
    server.protocol_disconnected(protocol)
    return True


def find_protocol(send: Any) -> Any:
    """Return daphne's protocol of the connection behind ``send``; None with other servers."""
    return send.args[0] if isinstance(send, partial) and send.args else None
