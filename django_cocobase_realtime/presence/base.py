"""The interface of presence backends, and the values that they receive and return.

A *member* of a room is a user, who may have several connections, or a connection without a user.
A member is in the room as long as one of its connections is. Each connection belongs to a server
process, and is in the room as long as the *lease* of the process lasts: a process that is killed
no longer renews its lease, and its connections leave when it expires. A connection that was lost
leaves after a *grace period*, so that a client that reconnects in time does not leave.

Each change of a room's members increases the *version* of the room by one. A process that has
version *n* and receives the change with version *n* + 1 has missed nothing; if it receives a
higher one, it must read the members again. A room without members is deleted. If it is opened
again, its versions are higher than all that it had before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django.utils.module_loading import import_string

from ..conf import conf
from ..events import Member, PresenceChange
from ..options import PresenceSettings

# a project and the name of a room
RoomKey = tuple[str, str]
# a room and the id of a connection
RoomConnection = tuple[RoomKey, str]

# dotted paths by the short names that ``BACKEND`` in the ``PRESENCE`` setting may have
BACKENDS = {
    "database": "django_cocobase_realtime.presence.database.DatabasePresence",
    "memory": "django_cocobase_realtime.presence.memory.MemoryPresence",
    "redis": "django_cocobase_realtime.presence.redis.RedisPresence",
}


@dataclass(frozen=True, slots=True)
class PresenceEntry:
    """A connection that enters a room, and the member to which it belongs."""

    # the room
    key: RoomKey
    # id of the connection
    connection: str
    # name of the server process that has the connection
    server: str
    # id of the member, unique in the room
    member: str
    # displayed name of the member
    name: str
    # title that the room gets if this entry opens it
    title: str
    # state of the member; None leaves the state of a member that is already in the room unchanged
    state: dict[str, Any] | None = None
    # user id that a client without a user claims
    claimed: str | None = None


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """The properties of a room that has members."""

    title: str
    # id of the member that opened the room, or the user id that it claimed
    created_by: str
    # seconds since 1970
    created_at: float
    version: int
    # number of members
    participants: int
    # whether ``created_by`` is the id of a member, and not claimed; None if it is not known
    created_by_verified: bool | None = None


@dataclass(frozen=True, slots=True)
class EnterResult:
    """The result of entering a room."""

    # the room, with the connection in it
    info: RoomInfo
    # how the members have changed; None if they have not
    change: PresenceChange | None


@dataclass(frozen=True, slots=True)
class MemberList:
    """The members of a room at one version."""

    # 0 for a room without members
    version: int = 0
    # in the order in which they joined
    members: Sequence[Member] = ()


@dataclass(frozen=True, slots=True)
class RoomListing:
    """A room and its members."""

    name: str
    info: RoomInfo
    members: Sequence[Member] = field(default=())


class PresenceUnavailable(Exception):
    """A store other than the database, such as Redis, does not answer."""


class PresenceBackend(ABC):
    """Base class of backends, which store which connections are in which room.

    Each process has one instance. All methods are synchronous and may be called from any thread.

    Atomicity
        A call that changes a room is atomic. If two processes change a room at the same time, the
        changes happen one after the other, and their versions are in this order.
    Delivery
        Backends deliver nothing. A method returns the change that it made, and its caller
        announces it to other processes. A process that misses an announcement finds out by
        `versions`.
    Expiry
        Members are removed by `expire`, which any process may call at any time. Each departure is
        returned to exactly one caller. If the store has a clock, it is used for all times.
    Errors
        Methods raise exceptions of the database, or `PresenceUnavailable`. After an exception, the
        call may be repeated.
    """

    def __init__(self, settings: PresenceSettings) -> None:
        """Create the backend, without connecting to its store."""
        self.settings = settings

    @abstractmethod
    def renew_lease(self, server: str, seconds: float) -> bool:
        """Set the lease of a server process to end ``seconds`` from now.

        Must be called before the first `enter`. Returns False if the server had no lease. Its
        connections may then have left all rooms, and it must enter them again.
        """

    @abstractmethod
    def enter(self, entry: PresenceEntry, *, create: bool = True) -> EnterResult | None:
        """Add a connection to a room, or change the name and state of its member.

        With ``create=False``, returns None if the room has no members.
        """

    @abstractmethod
    def leave(self, key: RoomKey, connection: str) -> PresenceChange | None:
        """Remove a connection; return the departure if it was the last one of its member."""

    @abstractmethod
    def mark_disconnected(self, connections: Sequence[RoomConnection], seconds: float) -> None:
        """Let lost connections leave their rooms after ``seconds``, unless they enter again."""

    @abstractmethod
    def set_state(
        self, key: RoomKey, connection: str, state: dict[str, Any]
    ) -> PresenceChange | None:
        """Set the state of a connection's member, and return the change.

        Returns None if the connection is not in the room, or the state is the same as before.
        """

    @abstractmethod
    def list_members(self, key: RoomKey) -> MemberList:
        """Return the members of a room."""

    @abstractmethod
    def get_room(self, key: RoomKey) -> RoomInfo | None:
        """Return the properties of a room, or None if it has no members."""

    @abstractmethod
    def versions(self, keys: Iterable[RoomKey]) -> dict[RoomKey, int]:
        """Return the versions of rooms. Rooms without members are left out."""

    @abstractmethod
    def expire(self) -> list[PresenceChange]:
        """Remove connections whose grace period or whose server's lease has ended.

        Returns the departures of members that have no other connection.
        """

    @abstractmethod
    def list_rooms(
        self, project: str, after: str = "", limit: int | None = None
    ) -> list[RoomListing]:
        """Return the rooms of a project that have members, ordered by name.

        These are the first ``limit`` of those whose names come after ``after``.
        """

    @abstractmethod
    def acquire_key(self, name: str, seconds: float) -> bool:
        """Acquire a key, unless it is acquired already; return whether it was acquired now.

        It is released after ``seconds``. Of several callers with the same name, one gets True,
        which implements idempotency keys.
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
    """Return the backend of the ``PRESENCE`` setting."""
    settings = conf.presence
    return _backend(settings.backend, settings)


def chunks_by_project(keys: Iterable[RoomKey], size: int) -> Iterator[tuple[str, list[str]]]:
    """Group rooms for queries: yield a project with up to ``size`` names of its rooms each."""
    names_by_project: dict[str, list[str]] = {}
    for project, name in keys:
        names_by_project.setdefault(project, []).append(name)
    for project, names in names_by_project.items():
        for start in range(0, len(names), size):
            yield project, names[start : start + size]
