"""One live connection as the hub sees it: who it is, what it asked for, and its writer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..wire.codes import CloseCode

if TYPE_CHECKING:
    from ..delivery.table import Subscription
    from ..identity import Identity
    from ..rooms.local_room import RoomMembership
    from .writer import Writer


NATIVE = "native"


class Close(Protocol):
    """Ends a connection, soon; ``retry_after_ms`` is told to the client."""

    def __call__(self, code: CloseCode, retry_after_ms: int | None = None) -> None:
        """Returns at once."""


class Connection:
    """A socket that the hub may write to. ``close`` asks its owner to end it.

    ``rights`` counts how often what its identity may see may have changed.
    """

    __slots__ = (
        "claimed",
        "close",
        "dialect",
        "id",
        "identity",
        "permissions_version",
        "rooms",
        "subscriptions",
        "writer",
    )

    def __init__(self, id: str, writer: Writer, close: Close) -> None:
        self.id = id
        self.writer = writer
        self.close = close
        self.identity: Identity | None = None
        self.permissions_version = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.rooms: dict[str, RoomMembership] = {}
        self.dialect = NATIVE
        self.claimed: tuple[str, str] | None = None  # a user id and name, where nobody vouches
