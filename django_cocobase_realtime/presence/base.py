"""Presence across processes: the contract of a backend, and the values that it takes and returns.

A *member* of a room is a user, however many connections it has, or a connection without a user. A
member is present through its connections, and a connection through the lease of the server
process that holds it: a server that is killed no longer renews its lease, and its connections
leave the rooms when the lease expires. A connection that was lost leaves after a grace period, so
that a client that reconnects in time does not leave.

Each change of a room's members gives the room the next version. A process that knows version *n*
and receives the change to *n* + 1 has missed nothing; with any other version it must read the
list again. A room without members is deleted. If it is opened again, its versions start above
those that it had before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django.utils.module_loading import import_string

from ..conf import PresenceSettings, conf
from ..events import Member, PresenceChange

RoomKey = tuple[str, str]
"""(project, name of the room)."""
RoomConnection = tuple[RoomKey, str]
"""(room, connection id)."""

# dotted path by the name that the ``PRESENCE`` setting may have as ``BACKEND``
BACKENDS = {
    "database": "django_cocobase_realtime.presence.database.DatabasePresence",
    "memory": "django_cocobase_realtime.presence.memory.MemoryPresence",
    "redis": "django_cocobase_realtime.presence.redis.RedisPresence",
}


@dataclass(frozen=True, slots=True)
class PresenceEntry:
    """A connection that enters a room as a member."""

    key: RoomKey
    connection: str
    # the server process that holds the connection
    server: str
    # id of the member, unique in the room
    member: str
    # displayed name of the member
    name: str
    # title of the room, if this entry opens it
    title: str
    # None leaves the state of a member that is already in the room as it is
    state: dict[str, Any] | None = None
    # the user id that a client without a user claims
    claimed: str | None = None


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """A room with members."""

    title: str
    # id of the member that opened the room
    created_by: str
    # seconds since 1970
    created_at: float
    version: int
    participants: int


@dataclass(frozen=True, slots=True)
class EnterResult:
    """The room after a connection has entered it, and the change of its members, if any."""

    info: RoomInfo
    change: PresenceChange | None


@dataclass(frozen=True, slots=True)
class MemberList:
    """The members of a room at a version, in the order in which they joined.

    A room without members has version 0.
    """

    version: int = 0
    members: Sequence[Member] = ()


@dataclass(frozen=True, slots=True)
class RoomListing:
    """A room and its members."""

    name: str
    info: RoomInfo
    members: Sequence[Member] = field(default=())


class PresenceUnavailable(Exception):
    """Redis, or another store that a backend uses, does not answer."""


class PresenceBackend(ABC):
    """Stores which connections are in which room. There is one instance per process.

    All methods are synchronous and may be called from any thread.

    Atomicity
        A call that changes a room is one step. If two processes change a room at the same time,
        one change comes after the other, and their versions have this order.
    Delivery
        None. A method returns what it changed, and its caller announces that to the other
        processes. A process that misses an announcement finds a higher version (`versions`).
    Expiry
        By `expire`, which any process may call at any time. Every departure is returned to
        exactly one caller. If the store has a clock, all times are measured by it.
    Errors
        Methods raise errors of the database, or `PresenceUnavailable`. A call that raised may be
        repeated.
    """

    def __init__(self, settings: PresenceSettings) -> None:
        """Prepare the backend; it connects to its store at the first call."""
        self.settings = settings

    @abstractmethod
    def renew_lease(self, server: str, seconds: float) -> bool:
        """Let the lease of a server expire after ``seconds`` from now.

        Call it before the first `enter`. Returns False if the server had no lease: then none of
        its connections is in a room any more, and the server must enter all of them again.
        """

    @abstractmethod
    def enter(self, entry: PresenceEntry, *, create: bool = True) -> EnterResult | None:
        """Put a connection into a room. A connection may enter again with another name or state.

        Returns None if ``create`` is False and the room has no members.
        """

    @abstractmethod
    def leave(self, key: RoomKey, connection: str) -> PresenceChange | None:
        """Remove a connection. Return the departure if it was the last one of its member."""

    @abstractmethod
    def mark_disconnected(self, connections: Sequence[RoomConnection], seconds: float) -> None:
        """Let lost connections leave after ``seconds``, unless they enter again before."""

    @abstractmethod
    def set_state(
        self, key: RoomKey, connection: str, state: dict[str, Any]
    ) -> PresenceChange | None:
        """Set the state of a connection's member.

        Returns None if the connection is not in the room or the state is the same as before.
        """

    @abstractmethod
    def list_members(self, key: RoomKey) -> MemberList:
        """Return the members of a room."""

    @abstractmethod
    def get_room(self, key: RoomKey) -> RoomInfo | None:
        """Return a room, or None if it has no members."""

    @abstractmethod
    def versions(self, keys: Iterable[RoomKey]) -> dict[RoomKey, int]:
        """Return the versions of those of the rooms that have members."""

    @abstractmethod
    def expire(self) -> list[PresenceChange]:
        """Remove connections whose grace period, or whose server's lease, is over.

        Returns the departures.
        """

    @abstractmethod
    def list_rooms(self, project: str) -> list[RoomListing]:
        """Return the rooms of a project that have members, by name."""

    @abstractmethod
    def acquire_key(self, name: str, seconds: float) -> bool:
        """Return whether no process has acquired ``name`` in the last ``seconds``, and acquire it.

        For idempotency keys: of several callers, one gets True.
        """

    @abstractmethod
    def release_key(self, name: str) -> None:
        """Undo `acquire_key`, so that the next caller gets True."""

    def close(self) -> None:  # noqa: B027 - most backends have no connections of their own
        """Close connections to the store. The next call opens them again."""


@lru_cache(maxsize=16)
def _backend(path: str, settings: PresenceSettings) -> PresenceBackend:
    backend: PresenceBackend = import_string(BACKENDS.get(path, path))(settings)
    return backend


def get_backend() -> PresenceBackend:
    """Return the backend that the ``PRESENCE`` setting names."""
    settings = conf.presence
    return _backend(settings.backend, settings)


def chunks_by_project(keys: Iterable[RoomKey], size: int) -> Iterator[tuple[str, list[str]]]:
    """Yield rooms as (project, names), with up to ``size`` names: for queries of many rooms."""
    names_by_project: dict[str, list[str]] = {}
    for project, name in keys:
        names_by_project.setdefault(project, []).append(name)
    for project, names in names_by_project.items():
        for start in range(0, len(names), size):
            yield project, names[start : start + size]
