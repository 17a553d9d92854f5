"""Presence in this process: for tests, and where there is one server process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..conf import PresenceSettings
from ..events import Member, PresenceChange
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
    member: str
    server: str
    leaves_at: float | None = None


@dataclass(slots=True)
class _Room:
    title: str
    created_by: str
    created_at: float
    version: int
    members: dict[str, Member] = field(default_factory=dict)
    connections: dict[str, _Connection] = field(default_factory=dict)

    def info(self) -> RoomInfo:
        return RoomInfo(
            self.title, self.created_by, self.created_at, self.version, len(self.members)
        )


class MemoryPresence(PresenceBackend):
    """Dictionaries under one lock. Nothing is shared with other processes, or survives this one."""

    def __init__(self, settings: PresenceSettings) -> None:
        self._lock = threading.RLock()
        self._rooms: dict[RoomKey, _Room] = {}
        self._servers: dict[str, float] = {}
        self._keys: dict[str, float] = {}

    def renew_lease(self, server: str, seconds: float) -> bool:
        with self._lock:
            known = server in self._servers
            self._servers[server] = time.monotonic() + seconds
            return known

    def enter(self, entry: PresenceEntry, *, create: bool = True) -> EnterResult | None:
        with self._lock:
            room = self._rooms.get(entry.key)
            if room is None:
                if not create:
                    return None
                room = self._rooms[entry.key] = _Room(
                    entry.title, entry.claimed or entry.member, time.time(), time.time_ns() // 1000
                )
            old = room.members.get(entry.member)
            state = entry.state
            if state is None:
                state = {} if old is None else old.state
            new = Member(entry.member, entry.name, state, entry.claimed)
            room.connections[entry.connection] = _Connection(entry.member, entry.server)
            move = None
            if new != old:
                room.members[entry.member] = new
                move = self._change(entry.key, room, "joined" if old is None else "updated", new)
            return EnterResult(room.info(), move)

    def leave(self, key: RoomKey, connection: str) -> PresenceChange | None:
        with self._lock:
            room = self._rooms.get(key)
            held = None if room is None else room.connections.pop(connection, None)
            if room is None or held is None:
                return None
            return self._remove_connection(key, room, held.member)

    def _remove_connection(self, key: RoomKey, room: _Room, member: str) -> PresenceChange | None:
        """One connection less; the departure, where it was its member's last."""
        if any(other.member == member for other in room.connections.values()):
            return None
        gone = room.members.pop(member)
        move = self._change(key, room, "left", gone)
        if not room.members:
            del self._rooms[key]
        return move

    def mark_disconnected(self, places: Sequence[RoomConnection], seconds: float) -> None:
        with self._lock:
            for key, connection in places:
                room = self._rooms.get(key)
                held = None if room is None else room.connections.get(connection)
                if held is not None:
                    held.leaves_at = time.monotonic() + seconds

    def set_state(
        self, key: RoomKey, connection: str, state: dict[str, Any]
    ) -> PresenceChange | None:
        with self._lock:
            room = self._rooms.get(key)
            held = None if room is None else room.connections.get(connection)
            if room is None or held is None:
                return None
            old = room.members[held.member]
            if old.state == state:
                return None
            new = room.members[held.member] = Member(old.id, old.name, state, old.claimed)
            return self._change(key, room, "updated", new)

    def list_members(self, key: RoomKey) -> MemberList:
        with self._lock:
            room = self._rooms.get(key)
            return (
                MemberList()
                if room is None
                else MemberList(room.version, list(room.members.values()))
            )

    def get_room(self, key: RoomKey) -> RoomInfo | None:
        with self._lock:
            room = self._rooms.get(key)
            return None if room is None else room.info()

    def versions(self, keys: Iterable[RoomKey]) -> dict[RoomKey, int]:
        with self._lock:
            return {key: self._rooms[key].version for key in keys if key in self._rooms}

    def expire(self) -> list[PresenceChange]:
        now = time.monotonic()
        moves = []
        with self._lock:
            for server, until in list(self._servers.items()):
                if until <= now:
                    del self._servers[server]
            for key, room in list(self._rooms.items()):
                for connection, held in list(room.connections.items()):
                    due = held.leaves_at is not None and held.leaves_at <= now
                    if due or held.server not in self._servers:
                        del room.connections[connection]
                        move = self._remove_connection(key, room, held.member)
                        if move is not None:
                            moves.append(move)
            for name, until in list(self._keys.items()):
                if until <= now:
                    del self._keys[name]
        return moves

    def list_rooms(self, project: str) -> list[RoomListing]:
        with self._lock:
            return [
                RoomListing(key[1], room.info(), list(room.members.values()))
                for key, room in sorted(self._rooms.items())
                if key[0] == project
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
        room.version += 1
        return PresenceChange(*key, event, member, len(room.members), room.version)
