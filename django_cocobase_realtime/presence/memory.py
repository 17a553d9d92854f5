"""Presence in this process: for tests, and where there is one server process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..conf import PresenceSettings
from ..events import Member, Presence
from .base import Entered, Entry, Listing, Place, PresenceBackend, RoomInfo, RoomKey, Roster


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
        self._claims: dict[str, float] = {}

    def renew(self, server: str, seconds: float) -> bool:
        with self._lock:
            known = server in self._servers
            self._servers[server] = time.monotonic() + seconds
            return known

    def enter(self, entry: Entry, *, create: bool = True) -> Entered | None:
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
                move = self._move(entry.key, room, "joined" if old is None else "updated", new)
            return Entered(room.info(), move)

    def leave(self, key: RoomKey, connection: str) -> Presence | None:
        with self._lock:
            room = self._rooms.get(key)
            held = None if room is None else room.connections.pop(connection, None)
            if room is None or held is None:
                return None
            return self._depart(key, room, held.member)

    def _depart(self, key: RoomKey, room: _Room, member: str) -> Presence | None:
        """One connection less; the departure, where it was its member's last."""
        if any(other.member == member for other in room.connections.values()):
            return None
        gone = room.members.pop(member)
        move = self._move(key, room, "left", gone)
        if not room.members:
            del self._rooms[key]
        return move

    def linger(self, places: Sequence[Place], seconds: float) -> None:
        with self._lock:
            for key, connection in places:
                room = self._rooms.get(key)
                held = None if room is None else room.connections.get(connection)
                if held is not None:
                    held.leaves_at = time.monotonic() + seconds

    def update(self, key: RoomKey, connection: str, state: dict[str, Any]) -> Presence | None:
        with self._lock:
            room = self._rooms.get(key)
            held = None if room is None else room.connections.get(connection)
            if room is None or held is None:
                return None
            old = room.members[held.member]
            if old.state == state:
                return None
            new = room.members[held.member] = Member(old.id, old.name, state, old.claimed)
            return self._move(key, room, "updated", new)

    def roster(self, key: RoomKey) -> Roster:
        with self._lock:
            room = self._rooms.get(key)
            return Roster() if room is None else Roster(room.version, list(room.members.values()))

    def info(self, key: RoomKey) -> RoomInfo | None:
        with self._lock:
            room = self._rooms.get(key)
            return None if room is None else room.info()

    def versions(self, keys: Iterable[RoomKey]) -> dict[RoomKey, int]:
        with self._lock:
            return {key: self._rooms[key].version for key in keys if key in self._rooms}

    def sweep(self) -> list[Presence]:
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
                        move = self._depart(key, room, held.member)
                        if move is not None:
                            moves.append(move)
            for name, until in list(self._claims.items()):
                if until <= now:
                    del self._claims[name]
        return moves

    def listing(self, project: str) -> list[Listing]:
        with self._lock:
            return [
                Listing(key[1], room.info(), list(room.members.values()))
                for key, room in sorted(self._rooms.items())
                if key[0] == project
            ]

    def claim(self, name: str, seconds: float) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._claims.get(name, now) > now:
                return False
            self._claims[name] = now + seconds
            return True

    def unclaim(self, name: str) -> None:
        with self._lock:
            self._claims.pop(name, None)

    def _move(
        self,
        key: RoomKey,
        room: _Room,
        event: Literal["joined", "left", "updated"],
        member: Member,
    ) -> Presence:
        room.version += 1
        return Presence(*key, event, member, len(room.members), room.version)
