"""One live WebSocket: who it acts for, and how to write to it and close it."""

from __future__ import annotations

from typing import Protocol

from ..identity import Identity
from ..wire.codes import CloseCode
from .writer import Writer

NATIVE = "native"
"""The dialect of connections that speak the protocol of the reference."""


class Close(Protocol):
    """Close a connection, soon."""

    def __call__(self, code: CloseCode, retry_after_ms: int | None = None) -> None:
        """Return at once; ``retry_after_ms`` is part of the ``closing`` frame."""


class Connection:
    """One authenticated (or not yet authenticated) socket.

    It knows nothing of subscriptions and rooms: `delivery` and `rooms` keep those by connection.
    """

    __slots__ = (
        "claimed_user",
        "close",
        "dialect",
        "id",
        "identity",
        "permissions_version",
        "writer",
    )

    def __init__(self, id: str, writer: Writer, close: Close) -> None:
        # unique among all connections of all processes
        self.id = id
        # the way out: bounded, never waits
        self.writer = writer
        # asks the consumer to close the socket
        self.close = close
        # who the connection acts for; None before ``auth``
        self.identity: Identity | None = None
        # incremented whenever what the identity may see may have changed
        self.permissions_version = 0
        # NATIVE, or one of the SDKs' dialects (see wire.sdk_frames)
        self.dialect = NATIVE
        # (user id, name) that an SDK client without a user claims; never verified
        self.claimed_user: tuple[str, str] | None = None
