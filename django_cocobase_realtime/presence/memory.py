"""The presence backend that uses the memory of one process, for tests and small sites."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..events import Member, PresenceChange
from ..options import PresenceSettings
from .base import (
    EnterResult,
    MemberList,
    PresenceBackend,
    PresenceEntry,
    RoomConnection,
    RoomInfo,
    RoomKey,
    RoomListing,
)


@dataclass(slots=True)
class _Connection:
    """A connection in a room."""

    # id of its member
    member: str
    # name of the server process that has the connection
    server: str
    # for a lost connection: the monotonic time at which it leaves the room
    leaves_at: float | None = None


@dataclass(slots=True)
class _Room:
    """A room with members."""

    title: str
    # as in `RoomInfo`
    created_by: str
    created_by_verified: bool
    # seconds since 1970
    created_at: float
    version: int
    # members by id, in the order in which they joined
    members: dict[str, Member] = field(default_factory=dict)
    # connections by id
    connections: dict[str, _Connection] = field(default_factory=dict)

    def info(self) -> RoomInfo:
        return RoomInfo(
            self.title,
            self.created_by,
            self.created_at,
            self.version,
            len(self.members),
            self.created_by_verified,
        )


class MemoryPresence(PresenceBackend):
    """Stores presence in dictionaries, which other processes do not share."""

    def __init__(self, settings: PresenceSettings) -> None:
        # held by each call
        self._lock = threading.RLock()
        self._rooms: dict[RoomKey, _Room] = {}
        # monotonic times at which leases end, by server
        self._leases: dict[str, float] = {}
        # monotonic times at which acquired keys are released, by key
        self._keys: dict[str, float] = {}

    def renew_lease(self, server: str, seconds: float) -> bool:
        with self._lock:
            had_lease = server in self._leases
            self._leases[server] = time.monotonic() + seconds
            return had_lease

    def enter(self, entry: PresenceEntry, *, create: bool = True) -> EnterResult | None:
        with self._lock:
            room = self._rooms.get(entry.key)
            if room is None:
                if not create:
                    return None
                room = self._rooms[entry.key] = _Room(
                    entry.title,
                    entry.claimed or entry.member,
                    entry.claimed is None,
                    time.time(),
                    time.time_ns() // 1000,
                )
            old = room.members.get(entry.member)
            state = entry.state
            if state is None:
                state = {} if old is None else old.state
            new = Member(entry.member, entry.name, state, entry.claimed)
            room.connections[entry.connection] = _Connection(entry.member, entry.server)
            change = None
            if new != old:
                room.members[entry.member] = new
                event: Literal["joined", "updated"] = "joined" if old is None else "updated"
                change = self._change(entry.key, room, event, new)
            return EnterResult(room.info(), change)

    def leave(self, key: RoomKey, connection: str) -> PresenceChange | None:
        with self._lock:
            room = self._rooms.get(key)
            removed = None if room is None else room.connections.pop(connection, None)
            if room is None or removed is None:
                return None
            return self._remove_absent_member(key, room, removed.member)

    def _remove_absent_member(
        self, key: RoomKey, room: _Room, member: str
    ) -> PresenceChange | None:
        """Remove a member if it has no connections left; return its departure, or None."""
        if any(other.member == member for other in room.connections.values()):
            return None
        departed = room.members.pop(member)
        change = self._change(key, room, "left", departed)
        if not room.members:
            del self._rooms[key]
        return change

    def mark_disconnected(self, connections: Sequence[RoomConnection], seconds: float) -> None:
        with self._lock:
            for key, name in connections:
                room = self._rooms.get(key)
                connection = None if room is None else room.connections.get(name)
                if connection is not None:
                    connection.leaves_at = time.monotonic() + seconds

    def set_state(
        self, key: RoomKey, connection: str, state: dict[str, Any]
    ) -> PresenceChange | None:
        with self._lock:
            room = self._rooms.get(key)
            entered = None if room is None else room.connections.get(connection)
            if room is None or entered is None:
                return None
            old = room.members[entered.member]
            if old.state == state:
                return None
            new = room.members[entered.member] = Member(old.id, old.name, state, old.claimed)
            return self._change(key, room, "updated", new)

    def list_members(self, key: RoomKey) -> MemberList:
        with self._lock:
            room = self._rooms.get(key)
            if room is None:
                return MemberList()
            return MemberList(room.version, list(room.members.values()))

    def get_room(self, key: RoomKey) -> RoomInfo | None:
        with self._lock:
            room = self._rooms.get(key)
            return None if room is None else room.info()

    def versions(self, keys: Iterable[RoomKey]) -> dict[RoomKey, int]:
        with self._lock:
            return {key: self._rooms[key].version for key in keys if key in self._rooms}

    def expire(self) -> list[PresenceChange]:
        now = time.monotonic()
        departures = []
        with self._lock:
            for server, expires_at in list(self._leases.items()):
                if expires_at <= now:
                    del self._leases[server]
            for key, room in list(self._rooms.items()):
                for name, connection in list(room.connections.items()):
                    due = connection.leaves_at is not None and connection.leaves_at <= now
                    if due or connection.server not in self._leases:
                        del room.connections[name]
                        change = self._remove_absent_member(key, room, connection.member)
                        if change is not None:
                            departures.append(change)
            for name, expires_at in list(self._keys.items()):
                if expires_at <= now:
                    del self._keys[name]
        return departures

    def list_rooms(
        self, project: str, after: str = "", limit: int | None = None
    ) -> list[RoomListing]:
        with self._lock:
            names = sorted(key[1] for key in self._rooms if key[0] == project and key[1] > after)
            rooms = [(name, self._rooms[project, name]) for name in names[:limit]]
            return [
                RoomListing(name, room.info(), list(room.members.values())) for name, room in rooms
            ]

    def acquire_key(self, name: str, seconds: float) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._keys.get(name, now) > now:
                return False
            self._keys[name] = now + seconds
            return True

    def release_key(self, name: str) -> None:
        with self._lock:
            self._keys.pop(name, None)

    def _change(
        self,
        key: RoomKey,
        room: _Room,
        event: Literal["joined", "left", "updated"],
        member: Member,
    ) -> PresenceChange:
        """Increase the version of a room, and return the change with this version."""
        room.version += 1
        return PresenceChange(*key, event, member, len(room.members), room.version)
