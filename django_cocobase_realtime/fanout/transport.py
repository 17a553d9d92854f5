"""The one look at a server's own buffer: daphne's ``send`` never waits, whatever has piled up.

Detected by features; where they are not there (another server, a wrapped ``send``, TLS ended in
the process) nothing is known, and a client's credit decides (see ``Credit``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


def unsent_of(send: Any) -> Callable[[], int] | None:
    """How many bytes this ``send`` has taken that the socket has not; None where nobody can tell.

    daphne 4 binds ``send`` to its protocol, whose Twisted transport holds what is not written.
    """
    if not isinstance(send, partial) or not send.args:
        return None
    transport: Any = getattr(send.args[0], "transport", None)
    if not all(hasattr(transport, name) for name in ("dataBuffer", "offset", "_tempDataLen")):
        return None

    def unsent() -> int:
        return len(transport.dataBuffer) - int(transport.offset) + int(transport._tempDataLen)

    return unsent
