"""A room in one process: the connections of this process, and the members in all processes.

The members are updated by announced changes, in the order of their versions. If an announcement
was lost, the list of members is read again, and the differences are applied. There is no I/O in
this module.
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
from ..transport.waiting_frames import FrameBuffer
from .held_frames import HeldFrames
from .history import HistoryPage


@dataclass(slots=True, eq=False)
class RoomMembership:
    """One connection in one room."""

    connection: Connection
    # the room
    key: RoomKey
    # what the connection may do in the room
    grant: RoomGrant
    # its entry in the presence backend; None if it joined without presence
    entry: PresenceEntry | None = None
    # whether it has got the list of members, and is sent the changes
    live: bool = False
    # broadcasts to deliver after the replay of older ones; None if there is no replay
    buffered: FrameBuffer | None = None
    # holds its frames while the permissions of the connection are evaluated again, or is None
    held_frames: HeldFrames | None = None
    # whether the connection has left the room
    has_ended: bool = False
    # whether it was reported to receivers of Django signals
    is_reported: bool = False

    def push(self, text: str) -> None:
        """Send a frame about the members, unless it must be held."""
        if self.held_frames is None:
            self.connection.writer.push(text)
        else:
            self.held_frames.append(self, text, is_event=False)

    def push_event(self, text: str, cursor: str | None = None) -> None:
        """Send a broadcast, unless it must be held."""
        if self.held_frames is None:
            self.connection.writer.push_event(text, cursor)
        else:
            self.held_frames.append(self, text, is_event=True)

    async def wait_resumed(self) -> None:
        """Wait until frames are not held."""
        while self.held_frames is not None:
            await self.held_frames.wait()


class ApplyResult(Enum):
    """The result of applying an event that was announced."""

    # it was the next event
    APPLIED = "applied"
    # it had been applied already
    DUPLICATE = "duplicate"
    # an event before it was lost, so that it was not applied
    GAP = "gap"


@dataclass(slots=True, eq=False)
class LocalRoom:
    """A room that at least one connection of this process has joined."""

    key: RoomKey
    # connections of this process in the room, by connection id
    memberships: dict[str, RoomMembership] = field(default_factory=dict)
    # version of `members`; None until they were read
    version: int | None = None
    # members in all processes, by id
    members: dict[str, Member] = field(default_factory=dict)
    # position of the last broadcast that was delivered here; None if the room is not durable
    position: Position | None = None
    title: str = ""

    def has(self, membership: RoomMembership) -> bool:
        """Return whether a membership has not ended."""
        return self.memberships.get(membership.connection.id) is membership

    def apply_presence(self, change: PresenceChange) -> ApplyResult:
        """Apply a change of the members, if its version is the next one."""
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
        """Replace the members by a list from the backend; return the changes, departures first.

        ``since`` is the version of this room when reading began. If changes have been applied since
        then, an older list is ignored. If not, a list with a lower version belongs to a room that
        was deleted and opened again.
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
        """Move the position of a durable room to a broadcast, if it is the next one."""
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
    """The request of a connection to join a room."""

    # name of the room
    room: str
    # whether the connection becomes a member
    presence: bool = True
    # state of the member; None leaves it unchanged
    state: dict[str, Any] | None = None
    # number of kept broadcasts to replay
    history: int = 0
    # cursor after which to replay all kept broadcasts, if possible
    since: str | None = None
    # title that the room gets if the request opens it
    title: str | None = None
    # whether to open the room if it has no members
    create: bool = True


@dataclass(frozen=True, slots=True)
class JoinResult:
    """The state of a room for a connection that has joined it."""

    # number of members
    participants: int
    # empty if the connection may not see the members
    members: list[Member]
    title: str
    # the connection's own member; None if it joined without presence
    member: Member | None
    # broadcasts to replay; None if the room keeps none
    history: HistoryPage | None
