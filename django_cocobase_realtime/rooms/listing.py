"""The list of a project's rooms that an identity may see."""

from __future__ import annotations

from dataclasses import replace

from ..declarations.registry import room_registry
from ..identity import Identity
from ..presence.base import RoomListing, get_backend
from ..pubsub.broker import broker
from ..utils.project_code import ProjectCodeFailed


def visible_rooms(identity: Identity) -> list[RoomListing]:
    """Return the rooms that an identity may join, with the members that it may see.

    Leaves out rooms whose permission raises an exception.

    Members whose grace period or lease has ended are removed before. Uses the ORM, so it must not
    be called in an event loop.
    """
    for change in get_backend().expire():
        broker.publish(change)
    listings = []
    for listing in get_backend().list_rooms(identity.project):
        room = room_registry.find(listing.name)
        try:
            grant = None if room is None else room.grant(identity, listing.name)
        except ProjectCodeFailed as failure:
            failure.log_once()
            continue
        if grant is not None:
            listings.append(listing if grant.can_see_members else _without_members(listing))
    return listings


def _without_members(listing: RoomListing) -> RoomListing:
    """Remove the members and the creator, who is one of them, but not the number of members."""
    return replace(listing, info=replace(listing.info, created_by=""), members=())
