"""Collections and rooms, with their permissions. The engine imports this module at startup."""

from django_cocobase_realtime import Collection, Room, register, register_room

from .models import Parcel


@register("parcels")
class Parcels(Collection):
    """A user sees their own parcels, and those of their teams."""

    model = Parcel
    fields = ("title", "owner", "team")
    depends_on = ("board.Team", "board.Membership")

    def can_subscribe(self, identity, filters):
        return identity.user is not None

    def visible_to(self, identity):
        return {
            "$or": [
                {"owner": identity.user_id},
                {"team.memberships.user": identity.user_id},
            ]
        }


@register_room("chat-*")
class Chat(Room):
    """A chat that sends its last 50 messages to a client that joins."""

    history = 50


@register_room("*")
class OtherRoom(Room):
    """Allow a room of any other name."""
