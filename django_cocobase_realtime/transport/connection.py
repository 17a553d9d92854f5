"""The class `Connection`, which represents an open WebSocket."""

from __future__ import annotations

import time
from typing import Protocol

from ..identity import Identity
from ..utils.fair_queue import SERVER, Owner
from ..wire.codes import CloseCode
from .writer import Writer

# dialect of connections that use this app's own protocol, and not that of the SDKs
NATIVE = "native"


class Close(Protocol):
    """A function that begins to close a connection."""

    def __call__(self, code: CloseCode, retry_after_ms: int | None = None) -> None:
        """Begin to close, without waiting. ``retry_after_ms`` is sent in the ``closing`` frame."""


class Connection:
    """An open WebSocket: its identity, and how to send to it and close it.

    The subscriptions and rooms of a connection are kept by `TopicManager` and `RoomManager`.
    """

    __slots__ = (
        "address",
        "claimed_user",
        "close",
        "connected_at",
        "dialect",
        "id",
        "identity",
        "owner",
        "permissions_version",
        "writer",
    )

    def __init__(self, id: str, writer: Writer, close: Close) -> None:
        # unique among all connections of all processes
        self.id = id
        # sends frames, without waiting
        self.writer = writer
        # lets the consumer close the socket
        self.close = close
        # IP address of the client
        self.address = ""
        # Unix time at which it was opened
        self.connected_at = time.time()
        # the user or app that the connection acts for; None before `auth`
        self.identity: Identity | None = None
        # for whom worker threads work, if they work for this connection
        self.owner: Owner = SERVER
        # incremented each time the identity's permissions may have changed
        self.permissions_version = 0
        # NATIVE, or one of the dialects in `wire.sdk_frames`
        self.dialect = NATIVE
        # id and name that an SDK client without a user claims; not verified
        self.claimed_user: tuple[str, str] | None = None
