"""Flow control under daphne, whose ``send`` never waits and which reads without a bound.

The Twisted transport behind ``send`` is found by its attributes. If they are missing (another
server, a wrapped ``send``, TLS terminated in the process), these functions do nothing, and the
client's acks are the only flow control (see `writer.AckWindow`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

HIGH_WATER_BYTES = 64 * 1024
"""Bytes in daphne's write buffer above which the socket counts as full (uvicorn's value)."""


def get_buffer_probe(send: Any) -> Callable[[], bool] | None:
    """Return a function that tells whether the server's write buffer is full, if that is known.

    daphne 4 binds ``send`` to its protocol, whose Twisted transport holds the unsent bytes.
    """
    transport: Any = getattr(_protocol(send), "transport", None)
    if not all(hasattr(transport, name) for name in ("dataBuffer", "offset", "_tempDataLen")):
        return None

    def is_full() -> bool:
        unsent = len(transport.dataBuffer) - int(transport.offset) + int(transport._tempDataLen)
        return unsent > HIGH_WATER_BYTES

    return is_full


@contextmanager
def paused_reading(send: Any) -> Iterator[None]:
    """Stop reading from the socket while the block waits for something.

    daphne queues what a client sends without a bound: a client that floods while one of its
    requests takes a second would fill the memory.
    """
    transport: Any = getattr(_protocol(send), "transport", None)
    if not all(hasattr(transport, name) for name in ("pauseProducing", "resumeProducing")):
        yield
        return
    paused = False

    def pause() -> None:
        nonlocal paused
        paused = True
        transport.pauseProducing()

    # in the next iteration of the loop: most requests do not wait at all
    handle = asyncio.get_running_loop().call_soon(pause)
    try:
        yield
    finally:
        handle.cancel()
        if paused:
            transport.resumeProducing()


def set_close_timeout(send: Any, seconds: float) -> None:
    """Give a stalled client ``seconds`` to answer a close.

    autobahn, under daphne, drops the socket after one second, so that a close frame behind unread
    data would never arrive. Other servers are left alone.
    """
    protocol = _protocol(send)
    if hasattr(protocol, "closeHandshakeTimeout"):
        protocol.closeHandshakeTimeout = seconds


def _protocol(send: Any) -> Any:
    return send.args[0] if isinstance(send, partial) and send.args else None
