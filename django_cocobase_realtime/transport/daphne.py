"""The one look at a server's own buffers: daphne's ``send`` never waits, whatever has piled up,
and neither does what it reads.

Detected by features; where they are not there (another server, a wrapped ``send``, TLS ended in
the process) nothing is known, and a client's credit decides (see ``Credit``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


def get_write_buffer_size(send: Any) -> Callable[[], int] | None:
    """How many bytes this ``send`` has taken that the socket has not; None where nobody can tell.

    daphne 4 binds ``send`` to its protocol, whose Twisted transport holds what is not written.
    """
    transport: Any = getattr(_protocol(send), "transport", None)
    if not all(hasattr(transport, name) for name in ("dataBuffer", "offset", "_tempDataLen")):
        return None

    def unsent() -> int:
        return len(transport.dataBuffer) - int(transport.offset) + int(transport._tempDataLen)

    return unsent


@contextmanager
def paused_reading(send: Any) -> Iterator[None]:
    """While the block waits, read no more from the socket, where this server reads on regardless.

    daphne queues what a client sends without a bound: one that floods while a request of its own
    takes a second would fill the memory.
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

    # soon, not at once: most requests wait for nothing
    soon = asyncio.get_running_loop().call_soon(pause)
    try:
        yield
    finally:
        soon.cancel()
        if paused:
            transport.resumeProducing()


def set_close_timeout(send: Any, seconds: float) -> None:
    """Let a client that stalls take so long to answer a close, where the server has a bound.

    autobahn, under daphne, cuts after a second: a close that waits behind what was not read would
    never be seen. Nothing where this server knows no such option.
    """
    protocol = _protocol(send)
    if hasattr(protocol, "closeHandshakeTimeout"):
        protocol.closeHandshakeTimeout = seconds


def _protocol(send: Any) -> Any:
    return send.args[0] if isinstance(send, partial) and send.args else None
