"""The list of a project's rooms that an identity may see."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ..declarations.registry import room_registry
from ..declarations.room import Room
from ..identity import Identity
from ..presence.base import RoomListing, get_backend
from ..pubsub.broker import broker
from ..utils.project_code import ProjectCodeFailed

logger = logging.getLogger(__name__)

# rooms that are read at a time
CHUNK_SIZE = 50
# rooms of one page that the identity may not join, and members that the page has; a page that would
# exceed them ends before. Rooms that it may join are not counted: otherwise clients could count the
# others by opening as many rooms as are evaluated
MAX_HIDDEN = 1000
MAX_MEMBERS = 10_000
# seconds after which no further permission is evaluated for a page
MAX_SECONDS = 1.0


@dataclass(slots=True)
class RoomPage:
    """A part of the list of rooms that an identity may see."""

    rooms: list[RoomListing] = field(default_factory=list)
    # name of the room after which the next page begins, which the identity must not learn; None
    # if there are no more rooms
    next: str | None = None


def list_visible_rooms(identity: Identity, limit: int, after: str = "") -> RoomPage:
    """Return up to ``limit`` rooms that an identity may join, with the members that it may see.

    The names of the rooms come after ``after``. A page may have fewer rooms although there are
    more, because permissions are evaluated only for a bounded number of rooms that the identity
    may not join, and a bounded time. A room whose permission raises is left out.

    Members whose grace period or lease has ended are removed before. Uses the ORM, so it must not
    be called in an event loop.
    """
    for change in get_backend().expire():
        broker.publish(change)
    page, permissions = RoomPage(), _Permissions(identity)
    started_at, members, hidden = time.monotonic(), 0, 0
    position: str | None = None
    for listing in _read(identity.project, after):
        is_over = hidden >= MAX_HIDDEN or time.monotonic() - started_at > MAX_SECONDS
        if position is not None and is_over:
            page.next = position
            return page
        visible = permissions.apply(listing)
        if visible is None:
            hidden += 1
            if not page.rooms:
                position = listing.name
            continue
        members += len(visible.members)
        if len(page.rooms) == limit or (page.rooms and members > MAX_MEMBERS):
            page.next = position
            return page
        page.rooms.append(visible)
        # never that of a hidden room, if there is another one: whether a room that the client
        # opens is on the next page would reveal the order of the two names
        position = listing.name
    return page


def _read(project: str, after: str) -> Iterator[RoomListing]:
    """Yield the rooms of a project that have members and whose names come after ``after``."""
    while True:
        listings = get_backend().list_rooms(project, after, limit=CHUNK_SIZE)
        yield from listings
        if len(listings) < CHUNK_SIZE:
            return
        after = listings[-1].name


class _Permissions:
    """The permissions of an identity in rooms."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        # declarations of which one permission raised, which is logged once
        self._failed: set[Room] = set()

    def apply(self, listing: RoomListing) -> RoomListing | None:
        """Return a room with the members that the identity may see, or None if it may not join."""
        room = room_registry.find(listing.name)
        try:
            grant = None if room is None else room.grant(self._identity, listing.name)
        except ProjectCodeFailed as failure:
            if room is not None and room not in self._failed:
                self._failed.add(room)
                failure.log()
            return None
        if grant is None or grant.can_see_members:
            return listing if grant is not None else None
        # without the creator, who is one of the members, but with their number
        info = replace(listing.info, created_by="", created_by_verified=None)
        return replace(listing, info=info, members=())
