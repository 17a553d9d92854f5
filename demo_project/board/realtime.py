"""What is watched, and who may see it. The engine imports modules of this name by itself."""

from django_cocobase_realtime import Collection, Room, register, register_room

from .models import Parcel
from .people import DISPATCHERS


@register("parcels")
class Parcels(Collection):
    """One's own parcels; dispatchers see all."""

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
    """Newcomers are told what was said before."""

    history = 50


@register_room("*")
class Elsewhere(Room):
    """Every other name is a room, too."""
