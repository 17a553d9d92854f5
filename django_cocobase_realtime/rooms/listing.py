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
# rooms whose permissions are evaluated for one page, and members that it has; a page that would
# exceed them ends before
MAX_EVALUATED = 1000
MAX_MEMBERS = 10_000
# seconds after which no further permission is evaluated for a page
MAX_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ListPosition:
    """The place in a list of rooms at which a page begins."""

    # name of the last room on the page before
    after: str = ""
    # number of rooms after it that are skipped, because the identity may not see them
    skipped: int = 0

    def __str__(self) -> str:
        return f"{self.skipped}:{self.after}"

    @classmethod
    def parse(cls, text: str) -> ListPosition:
        """Return the position that ``str`` has made a text of. Raises ``ValueError``."""
        skipped, separator, after = text.partition(":")
        if not separator or not skipped.isascii() or not skipped.isdigit() or "\0" in after:
            raise ValueError(text)
        return cls(after, int(skipped[:9]))


@dataclass(slots=True)
class RoomPage:
    """A part of the list of rooms that an identity may see."""

    rooms: list[RoomListing] = field(default_factory=list)
    # where the next page begins; None if there are no more rooms
    next: ListPosition | None = None


def list_visible_rooms(identity: Identity, limit: int, position: ListPosition) -> RoomPage:
    """Return up to ``limit`` rooms that an identity may join, with the members that it may see.

    A page may have fewer rooms although there are more, because permissions are evaluated only
    for a bounded number of rooms and a bounded time. A room whose permission raises is left out.

    Leaves out rooms whose permission raises an exception.

    Members whose grace period or lease has ended are removed before. Uses the ORM, so it must not
    be called in an event loop.
    """
    for change in get_backend().expire():
        broker.publish(change)
    page, permissions = RoomPage(), _Permissions(identity)
    started_at, members = time.monotonic(), 0
    for evaluated, listing in enumerate(_read(identity.project, position)):
        is_over = evaluated >= MAX_EVALUATED or time.monotonic() - started_at > MAX_SECONDS
        if evaluated and is_over:
            page.next = position
            return page
        visible = permissions.apply(listing)
        if visible is None:
            position = replace(position, skipped=position.skipped + 1)
            continue
        members += len(visible.members)
        if len(page.rooms) == limit or (page.rooms and members > MAX_MEMBERS):
            page.next = position
            return page
        page.rooms.append(visible)
        position = ListPosition(listing.name)
    return page


def _read(project: str, position: ListPosition) -> Iterator[RoomListing]:
    """Yield the rooms of a project that have members, from a position on."""
    after, offset = position.after, position.skipped
    while True:
        listings = get_backend().list_rooms(project, after, offset, CHUNK_SIZE)
        yield from listings
        if len(listings) < CHUNK_SIZE:
            return
        after, offset = listings[-1].name, 0


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
        return replace(listing, info=replace(listing.info, created_by=""), members=())
