"""The room of the admin's pages, which only staff with a permission may join."""

from __future__ import annotations

from typing import Any

from ..identity import Identity
from .room import Room, RoomGrant

# name of the room; no declaration of a project applies to it
OPERATIONS_ROOM = "$operations"
VIEW_PERMISSION = "cocobase_realtime.view_connections"
DISCONNECT_PERMISSION = "cocobase_realtime.disconnect_connections"


def is_permitted(user: Any, permission: str = VIEW_PERMISSION) -> bool:
    """Return whether a user is active, belongs to the staff, and has a permission."""
    return bool(
        getattr(user, "is_active", False) is True
        and getattr(user, "is_staff", False) is True
        and user.has_perm(permission)
    )


class OperationsRoom(Room):
    """The room to which a process sends how many connections there are, see `inspection.live`."""

    pattern = OPERATIONS_ROOM
    title = "Operations"

    def admits(self, identity: Identity, room: str) -> bool:
        """Return whether the identity is that of a Django session, as the admin's pages have it."""
        is_session = identity.credential.partition(":")[0] == "session"
        return is_session and identity.user is not None and identity.may_use_room(room)

    def can_join(self, identity: Identity, room: str) -> bool:
        """Return whether the user may see the connections."""
        return is_permitted(identity.user)

    def can_broadcast(self, identity: Identity, room: str) -> bool:
        """Return False: only the server sends."""
        return False

    def can_see_members(self, identity: Identity, room: str) -> bool:
        """Return False: the room has no members."""
        return False

    def grant(self, identity: Identity, room: str) -> RoomGrant | None:
        """Return a grant to receive broadcasts, without becoming a member, or None."""
        granted = super().grant(identity, room)
        if granted is None:
            return None
        return RoomGrant(self, can_broadcast=False, can_see_members=False, can_be_member=False)
