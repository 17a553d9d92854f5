"""Declarations of rooms: what identities may do in them, and how many broadcasts they keep.

A declaration applies to all rooms whose names match its pattern. If a project declares no rooms,
every client with a credential may use every room of its own project. As soon as it declares one,
rooms that match no pattern are refused, unless ``"*"`` is declared as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from django.utils.module_loading import import_string

from ..identity import Identity, clean_name
from ..utils.project_code import calling, synchronous

# the keys that an entry of the ROOMS setting may have
OPTIONS = ("permission", "history", "durable", "title", "public")
# the methods of which a permission of rooms has at least one
PERMISSION_METHODS = ("can_join", "can_broadcast", "can_see_members")
DURABLE_HISTORY = 1000  # broadcasts that a durable room keeps if `history` is not set


@dataclass(frozen=True, slots=True)
class RoomGrant:
    """The permissions of one identity in a room that it may join."""

    # the declaration that was evaluated
    room: Room
    # whether it may send broadcasts
    can_broadcast: bool = True
    # whether it may see the other members
    can_see_members: bool = True
    # whether it may become a member, with a state that the other members see
    can_be_member: bool = True


class Room:
    """Declares the rooms whose names match a pattern. Subclass it with ``@register_room("…")``.

    The methods are synchronous, may use the ORM, and are called when a client joins a room.
    """

    # pattern of the rooms' names; set by the decorator, or the key in ``ROOMS``
    pattern: ClassVar[str] = "*"
    # a class with some of the methods `can_join`, `can_broadcast` and `can_see_members`, which
    # are used instead of those of this class; or its dotted path
    permission: ClassVar[type[Any] | str | None] = None
    # number of broadcasts that each room keeps for clients that join later
    history: ClassVar[int] = 0
    # whether broadcasts that the channel layer has lost are read from the room's history, so that
    # all are delivered; the history then has 1000 broadcasts unless `history` is set
    durable: ClassVar[bool] = False
    # title of the rooms; None for their names
    title: ClassVar[str | None] = None
    # whether anonymous visitors may join, to read broadcasts
    public: ClassVar[bool] = False

    def can_join(self, identity: Identity, room: str) -> bool:
        """Return whether the identity may join the room.

        A client that is refused cannot find out whether the room has members.
        """
        return bool(self._call_permission("can_join", identity, room))

    def can_broadcast(self, identity: Identity, room: str) -> bool:
        """Return whether the identity may send broadcasts, and not only receive them."""
        return bool(self._call_permission("can_broadcast", identity, room))

    def can_see_members(self, identity: Identity, room: str) -> bool:
        """Return whether the identity may see the members. Their number is always visible."""
        return bool(self._call_permission("can_see_members", identity, room))

    def _call_permission(self, method_name: str, identity: Identity, room: str) -> Any:
        method = getattr(self._permission, method_name, None)
        if method is None:
            # visitors see the members only if a method allows it
            return method_name == "can_join" or identity.is_authenticated
        return synchronous(method(identity, room))

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
        """Whether `grant` calls code of the project, which may use the ORM."""
        overridden = any(
            getattr(type(self), name) is not getattr(Room, name) for name in PERMISSION_METHODS
        )
        return overridden or self.permission is not None

    def admits(self, identity: Identity, room: str) -> bool:
        """Return whether permissions may be asked about an identity.

        They are not asked about anonymous visitors unless the room is public, nor about credentials
        whose scope does not include the room.
        """
        # compared with True, so that a mistake such as a list does not open the room
        return identity.may_use_room(room, public=self.public is True)

    def grant(self, identity: Identity, room: str) -> RoomGrant | None:
        """Return what the identity may do in a room, or None if it may not join.

        Permissions are asked only if `admits` is true. A read-only identity may only read, whatever
        the permissions allow.

        Raises `ProjectCodeFailed` if a method raises. Must not be called in an event loop if
        `has_custom_permission` is True.
        """
        if not self.admits(identity, room):
            return None
        if not self._ask("can_join", identity, room):
            return None
        can_write = not identity.is_read_only
        return RoomGrant(
            self,
            can_write and self._ask("can_broadcast", identity, room),
            self._ask("can_see_members", identity, room),
            can_write,
        )

    def _ask(self, method_name: str, identity: Identity, room: str) -> bool:
        """Return the answer of one of the methods that the project may write."""
        if not self.has_custom_permission:
            return bool(getattr(self, method_name)(identity, room))
        with calling(f"room {room!r}", method_name, identity.credential, kind=self._kind):
            return bool(synchronous(getattr(self, method_name)(identity, room)))

    @property
    def _kind(self) -> str:
        return f"rooms {self.pattern!r}"

    def get_title(self, room: str) -> str:
        """Return the title of a room; "" or None stands for `title`, or else the room's name."""
        return self.title or room

    @cached_property
    def has_custom_title(self) -> bool:
        """Whether `title_of` calls code of the project, which may use the ORM."""
        return type(self).get_title is not Room.get_title

    def title_of(self, room: str) -> str:
        """Return the title of a room, as text that every database can store.

        Raises `ProjectCodeFailed` if `get_title` raises. Must not be called in an event loop if
        `has_custom_title` is True.
        """
        default = clean_name(self.title) or room
        if not self.has_custom_title:
            return default
        with calling(f"room {room!r}", "get_title", kind=self._kind):
            title: Any = synchronous(self.get_title(room))
            return default if title is None else clean_name(str(title)) or default
