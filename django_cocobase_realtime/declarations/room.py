"""Declared rooms: who may do what in rooms whose names match a pattern, and what they keep.

If a project declares no rooms, every authenticated identity may use every room of its own
project. With the first declared pattern, names that match no pattern are refused; declare ``"*"``
for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from django.utils.module_loading import import_string

from ..identity import Identity

OPTIONS = ("permission", "history", "durable", "title")
PERMISSION_METHODS = ("can_join", "can_broadcast", "can_see_members")
DURABLE_HISTORY = 1000  # broadcasts that a durable room keeps unless `history` says otherwise


@dataclass(frozen=True, slots=True)
class RoomGrant:
    """What one identity may do in a room that it may join."""

    room: Room
    can_broadcast: bool = True
    can_see_members: bool = True


class Room:
    """Rooms whose names match a pattern. Subclass and ``@register_room("chat-*")`` it.

    The methods are synchronous, may use the ORM, and run when a client joins a room.
    """

    # set from the decorator or the key in ``ROOMS``
    pattern: ClassVar[str] = "*"
    # a class with `can_join`, `can_broadcast` and `can_see_members`, or some of them, to use
    # instead of the methods of this class; or its dotted path
    permission: ClassVar[type[Any] | str | None] = None
    # number of broadcasts that each room keeps for clients that join later
    history: ClassVar[int] = 0
    # read broadcasts that the channel layer loses from the room's history, which then has 1000
    # broadcasts unless ``history`` sets another number
    durable: ClassVar[bool] = False
    # displayed name; None displays the room's own name
    title: ClassVar[str | None] = None

    def can_join(self, identity: Identity, room: str) -> bool:
        """Return whether the identity may join.

        A refusal does not reveal whether the room has members.
        """
        return bool(self._call_permission("can_join", identity, room))

    def can_broadcast(self, identity: Identity, room: str) -> bool:
        """Return whether a member may send broadcasts, not only receive them."""
        return bool(self._call_permission("can_broadcast", identity, room))

    def can_see_members(self, identity: Identity, room: str) -> bool:
        """Return whether a member may see the other members. Their number is always visible."""
        return bool(self._call_permission("can_see_members", identity, room))

    def _call_permission(self, method_name: str, identity: Identity, room: str) -> Any:
        method = getattr(self._permission, method_name, None)
        return identity.is_authenticated if method is None else method(identity, room)

    @cached_property
    def _permission(self) -> Any:
        permission = self.permission
        if isinstance(permission, str):
            permission = import_string(permission)
        return permission() if isinstance(permission, type) else permission

    @property
    def history_size(self) -> int:
        """Number of broadcasts that each room keeps."""
        return self.history or (DURABLE_HISTORY if self.durable else 0)

    @cached_property
    def has_custom_permission(self) -> bool:
        """Whether code of the project decides, which may block; else `grant` never blocks."""
        overridden = any(
            getattr(type(self), name) is not getattr(Room, name) for name in PERMISSION_METHODS
        )
        return overridden or self.permission is not None

    def grant(self, identity: Identity, room: str) -> RoomGrant | None:
        """Return what the identity may do in a room, or None if it may not join.

        Blocks if `has_custom_permission`: then do not call it in an event loop.
        """
        if not self.can_join(identity, room):
            return None
        return RoomGrant(
            self, self.can_broadcast(identity, room), self.can_see_members(identity, room)
        )

    def get_title(self, room: str) -> str:
        """Return the title of a room that was opened without one."""
        return self.title or room
