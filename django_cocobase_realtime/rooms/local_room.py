"""A room as one process knows it: its connections here, and its members everywhere. No I/O.

The list of members follows the announced changes version by version. If an announcement was lost,
the list is read again, and the difference is applied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..declarations.room import RoomGrant
from ..events import Broadcast, Member, PresenceChange
from ..log.cursor import Position
from ..presence.base import MemberList, PresenceEntry, RoomKey
from ..transport.connection import Connection
from .history import HistoryPage


@dataclass(slots=True, eq=False)
class RoomMembership:
    """One connection in one room."""

    connection: Connection
    key: RoomKey
    # what the connection may do in the room
    grant: RoomGrant
    # its entry in the list of members; None if it joined without presence
    entry: PresenceEntry | None = None
    # whether it was sent the list of members, and gets the changes
    live: bool = False
    # broadcasts that arrived while older ones are being sent; None once it gets all at once
    buffered: list[Broadcast] | None = None


class ApplyResult(Enum):
    """What an announced change is to this process."""

    # the next one: it was applied
    APPLIED = "applied"
    # known already
    DUPLICATE = "duplicate"
    # at least one before it was lost
    GAP = "gap"


@dataclass(slots=True, eq=False)
class LocalRoom:
    """A room that at least one connection of this process has joined."""

    key: RoomKey
    # by connection id
    memberships: dict[str, RoomMembership] = field(default_factory=dict)
    # version of ``members``; None until the list was read
    version: int | None = None
    # members in all processes, by id
    members: dict[str, Member] = field(default_factory=dict)
    # the last broadcast that was delivered here; None if the room is not durable
    position: Position | None = None
    title: str = ""

    def apply_presence(self, change: PresenceChange) -> ApplyResult:
        """Apply an announced change of the members, if it is the next one."""
        if self.version is None:
            return ApplyResult.GAP
        if change.version <= self.version:
            return ApplyResult.DUPLICATE
        if change.version > self.version + 1:
            return ApplyResult.GAP
        self.version = change.version
        if change.event == "left":
            self.members.pop(change.member.id, None)
        else:
            self.members[change.member.id] = change.member
        return ApplyResult.APPLIED

    def reconcile(self, listed: MemberList, since: int | None) -> list[PresenceChange]:
        """Replace the members by a list that was read. Return the changes, departures first.

        ``since`` is the version here when reading began. If changes were applied since, they may
        be newer than the list, and stay; otherwise a lower version belongs to a room that was
        closed and opened again.
        """
        if self.version not in (None, since) and listed.version < (self.version or 0):
            return []
        old, new = self.members, {member.id: member for member in listed.members}
        was_known = self.version is not None
        self.members, self.version = new, listed.version
        if not was_known:
            return []
        left = [self._change("left", member) for id, member in old.items() if id not in new]
        joined_or_updated = [
            self._change("joined" if id not in old else "updated", member)
            for id, member in new.items()
            if old.get(id) != member
        ]
        return left + joined_or_updated

    def _change(self, event: Any, member: Member) -> PresenceChange:
        return PresenceChange(*self.key, event, member, len(self.members), self.version or 0)

    def apply_broadcast(self, event: Broadcast) -> ApplyResult:
        """Move the position to a broadcast of a durable room, if it is the next one."""
        position = self.position
        if position is None or event.seq is None or event.epoch is None:
            return ApplyResult.APPLIED
        if event.epoch == position.epoch:
            if event.seq <= position.seq:
                return ApplyResult.DUPLICATE
            if event.seq > position.seq + 1:
                return ApplyResult.GAP
        self.position = Position(event.epoch, event.seq)
        return ApplyResult.APPLIED


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """How a connection wants to join a room."""

    room: str
    # whether it is listed as a member
    presence: bool = True
    # its member's state; None keeps the present one
    state: dict[str, Any] | None = None
    # number of kept broadcasts to send first
    history: int = 0
    # cursor after which to send kept broadcasts, instead of a number
    since: str | None = None
    # title of a room that is opened by this
    title: str | None = None
    # whether to open a room that has no members
    create: bool = True


@dataclass(frozen=True, slots=True)
class JoinResult:
    """A room as the joining connection finds it."""

    participants: int
    # empty if the connection may not see who is there
    members: list[Member]
    title: str
    # the connection's own entry; None if it joined without presence
    member: Member | None
    # kept broadcasts; None if the room keeps none
    history: HistoryPage | None
