"""The rooms of a project as one identity may see them."""

from __future__ import annotations

from dataclasses import replace

from ..declarations.registry import room_registry
from ..identity import Identity
from ..presence.base import RoomListing, get_backend
from ..pubsub.broker import broker


def visible_rooms(identity: Identity) -> list[RoomListing]:
    """Rooms that the identity may join, with the members that it may see. Uses the database.

    Whoever is gone by now is told to have left.
    """
    for move in get_backend().expire():
        broker.publish(move)
    found = []
    for each in get_backend().list_rooms(identity.project):
        room = room_registry.find(each.name)
        grant = None if room is None else room.grant(identity, each.name)
        if grant is not None:
            found.append(each if grant.can_see_members else _without_members(each))
    return found


def _without_members(listing: RoomListing) -> RoomListing:
    """How many there are, but not who; whoever opened it was one of them."""
    return replace(listing, info=replace(listing.info, created_by=""), members=())
