"""Rooms of one process: which connections are in which, and who they are.

Members are counted within this process. A member is a user, however many connections it has;
a connection without a user is a member of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..fanout.connection import Connection

RoomKey = tuple[str, str]
"""(project, room)."""


class Rooms:
    """Membership of this process's connections. Not thread-safe: one an event loop."""

    def __init__(self) -> None:
        self._members: dict[RoomKey, dict[str, Connection]] = {}

    def enter(self, key: RoomKey, connection: Connection) -> bool:
        """Add a connection; True where it is the room's first one."""
        members = self._members.setdefault(key, {})
        members[connection.id] = connection
        return len(members) == 1

    def leave(self, key: RoomKey, connection: Connection) -> bool:
        """Take a connection out; True where it was the room's last one."""
        members = self._members.get(key)
        if members is None or members.pop(connection.id, None) is None:
            return False
        if members:
            return False
        del self._members[key]
        return True

    def connections(self, key: RoomKey) -> Iterable[Connection]:
        """Who is in the room, in the order in which they came."""
        return self._members.get(key, {}).values()

    def members(self, key: RoomKey) -> list[dict[str, Any]]:
        """``{"id", "name"}`` of each member, once a user."""
        found: dict[str, dict[str, Any]] = {}
        for connection in self.connections(key):
            identity = connection.identity
            if identity is not None:
                id = identity.user_key or connection.id
                found.setdefault(id, {"id": id, "name": identity.name})
        return list(found.values())
