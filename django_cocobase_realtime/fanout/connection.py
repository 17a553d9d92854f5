"""One live connection as the hub sees it: who it is, what it asked for, and its writer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..wire.codes import CloseCode

if TYPE_CHECKING:
    from ..identity import Identity
    from .subscriptions import Subscription
    from .writer import Writer


class Connection:
    """A socket that the hub may write to. ``close`` asks its owner to end it."""

    __slots__ = ("close", "id", "identity", "rooms", "subscriptions", "writer")

    def __init__(self, id: str, writer: Writer, close: Callable[[CloseCode], None]) -> None:
        self.id = id
        self.writer = writer
        self.close = close
        self.identity: Identity | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.rooms: set[str] = set()
