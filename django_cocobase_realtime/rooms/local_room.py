"""The rooms of one process: who sits in them here, and who is in them anywhere. No I/O.

A room's list of members follows the changes that are announced, version by version; what an
announcement was lost for is found by reading the list again, and told as what changed between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..declarations.room import RoomGrant
from ..events import Broadcast, Member, PresenceChange
from ..log.cursor import Position
from ..presence.base import MemberList, PresenceEntry, RoomKey
from .history import HistoryPage

if TYPE_CHECKING:
    from ..transport.connection import Connection


@dataclass(slots=True, eq=False)
class RoomMembership:
    """One connection in one room. ``entry`` is None for one that is not listed.

    ``live``: it was told who is there, and hears of changes. ``held``: what was said while it is
    still being told what was said before, None once it hears all.
    """

    connection: Connection
    key: RoomKey
    grant: RoomGrant
    entry: PresenceEntry | None = None
    live: bool = False
    buffered: list[Broadcast] | None = None


class ApplyResult(Enum):
    """What an announced change is to this process."""

    APPLIED = "next"
    DUPLICATE = "known"
    GAP = "gap"


@dataclass(slots=True, eq=False)
class LocalRoom:
    """A room in which somebody of this process sits.

    ``version`` of ``members`` is None until the list was read. ``position`` is the last broadcast
    that was delivered here, None where the room is not durable. ``title`` is what people see.
    """

    key: RoomKey
    memberships: dict[str, RoomMembership] = field(default_factory=dict)
    version: int | None = None
    members: dict[str, Member] = field(default_factory=dict)
    position: Position | None = None
    title: str = ""

    def apply_presence(self, move: PresenceChange) -> ApplyResult:
        """Apply an announced change, where it is the next one."""
        if self.version is None:
            return ApplyResult.GAP
        if move.version <= self.version:
            return ApplyResult.DUPLICATE
        if move.version > self.version + 1:
            return ApplyResult.GAP
        self.version = move.version
        if move.event == "left":
            self.members.pop(move.member.id, None)
        else:
            self.members[move.member.id] = move.member
        return ApplyResult.APPLIED

    def reconcile(self, roster: MemberList, since: int | None) -> list[PresenceChange]:
        """Take a list that was read for the truth; what changed, departures first.

        ``since``: the version here when reading began. What was announced meanwhile may be newer
        than what was read, and stays; otherwise a lower version is that of a room begun anew.
        """
        if self.version not in (None, since) and roster.version < (self.version or 0):
            return []
        new = {member.id: member for member in roster.members}
        old, known = self.members, self.version is not None
        self.members, self.version = new, roster.version
        if not known:
            return []
        gone = [self._change("left", member) for id, member in old.items() if id not in new]
        come = [
            self._change("joined" if id not in old else "updated", member)
            for id, member in new.items()
            if old.get(id) != member
        ]
        return gone + come

    def _change(self, event: Any, member: Member) -> PresenceChange:
        return PresenceChange(*self.key, event, member, len(self.members), self.version or 0)

    def apply_broadcast(self, event: Broadcast) -> ApplyResult:
        """Whether a broadcast of a durable room is the next one; then it counts as delivered."""
        held = self.position
        if held is None or event.seq is None or event.epoch is None:
            return ApplyResult.APPLIED
        if event.epoch == held.epoch:
            if event.seq <= held.seq:
                return ApplyResult.DUPLICATE
            if event.seq > held.seq + 1:
                return ApplyResult.GAP
        self.position = Position(event.epoch, event.seq)
        return ApplyResult.APPLIED


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """How somebody wants to enter a room. ``create`` False: only where somebody is."""

    room: str
    presence: bool = True
    state: dict[str, Any] | None = None
    history: int = 0
    since: str | None = None
    title: str | None = None
    create: bool = True


@dataclass(frozen=True, slots=True)
class JoinResult:
    """A room as who enters it finds it; ``past`` None where it keeps nothing.

    ``member`` is he himself, None where he is not listed.
    """

    participants: int
    members: list[Member]
    title: str
    member: Member | None
    history: HistoryPage | None
