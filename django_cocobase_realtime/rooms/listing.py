"""The rooms of a project that an identity may see."""

from __future__ import annotations

from dataclasses import replace

from ..declarations.registry import room_registry
from ..identity import Identity
from ..presence.base import RoomListing, get_backend
from ..pubsub.broker import broker


def visible_rooms(identity: Identity) -> list[RoomListing]:
    """Return the rooms that an identity may join, with the members that it may see.

    Uses the database. Members whose time is over are removed first.
    """
    for change in get_backend().expire():
        broker.publish(change)
    listings = []
    for listing in get_backend().list_rooms(identity.project):
        room = room_registry.find(listing.name)
        grant = None if room is None else room.grant(identity, listing.name)
        if grant is not None:
            listings.append(listing if grant.can_see_members else _without_members(listing))
    return listings


def _without_members(listing: RoomListing) -> RoomListing:
    """Leave the number of participants, but not who they are; the creator is one of them."""
    return replace(listing, info=replace(listing.info, created_by=""), members=())
