"""Collections and rooms, with their permissions. The engine imports this module at startup."""

from django_cocobase_realtime import Collection, Room, register, register_room

from .models import Parcel
from .users import DISPATCHERS


@register("parcels")
class Parcels(Collection):
    """A user sees their own parcels; dispatchers see all of them."""

    model = Parcel
    fields = ("title", "owner")

    def can_subscribe(self, identity, filters):
        return identity.user is not None

    def visible_to(self, identity):
        if identity.user.groups.filter(name=DISPATCHERS).exists():
            return True
        return {"owner": identity.user_id}


@register_room("chat-*")
class Chat(Room):
    """A chat that sends its last 50 messages to a client that joins."""

    history = 50


@register_room("*")
class OtherRoom(Room):
    """Allow a room of any other name."""
