"""Who is in which room, across processes: the contract of a presence backend.

A *member* is a user, however many connections it has, or a connection without a user. Members are
there by their connections, connections by the lease of the server that holds them: a server that
is killed stops renewing, and its connections are gone with its lease. A connection that was lost
lingers a while, so that a reconnect is no departure.

Each change of a room's members has a version, one more than the last: who has seen version *n*
and is told *n* + 1 has missed nothing, who is told another one reads the list again. A room that
became empty is forgotten; opened anew, its versions begin above those it had.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django.utils.module_loading import import_string

from ..conf import PresenceSettings, conf
from ..events import Member, PresenceChange

RoomKey = tuple[str, str]
"""(project, room)."""
RoomConnection = tuple[RoomKey, str]
"""(room, connection id)."""


@dataclass(frozen=True, slots=True)
class PresenceEntry:
    """A connection of ``server`` that enters a room as ``member``.

    ``state`` None leaves a member that is there already as it is. ``title`` is for a room that is
    opened by this.
    """

    key: RoomKey
    connection: str
    server: str
    member: str
    name: str
    title: str
    state: dict[str, Any] | None = None
    claimed: str | None = None


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """A room: ``created_by`` is its first member's id, ``created_at`` seconds since 1970."""

    title: str
    created_by: str
    created_at: float
    version: int
    participants: int


@dataclass(frozen=True, slots=True)
class EnterResult:
    """The room as it is with the new connection, and the change, if that made any."""

    info: RoomInfo
    change: PresenceChange | None


@dataclass(frozen=True, slots=True)
class MemberList:
    """All members of a room at a version, in the order in which they came; none is version 0."""

    version: int = 0
    members: Sequence[Member] = ()


@dataclass(frozen=True, slots=True)
class RoomListing:
    """A room and who is in it."""

    name: str
    info: RoomInfo
    members: Sequence[Member] = field(default=())


class PresenceUnavailable(Exception):
    """Redis, or what else a backend keeps presence in, does not answer."""


class PresenceBackend(ABC):
    """The shared memory of rooms. One a process; all methods are synchronous and thread-safe.

    Atomicity: each method call that changes a room is one step; two processes that change one
    room at once do so one after the other, and their versions say in which order.
    Delivery: none. A method returns what it changed, and its caller tells the others; who misses
    that finds the version moved on (``versions``).
    Expiry: by ``sweep``, which any process may call at any time: each departure is returned to
    exactly one caller. Times are taken from one clock for all processes where the backend has one.
    Errors: methods raise what the database raises, or `PresenceUnavailable`, and then have
    changed nothing that a second call would not repair.
    """

    def __init__(self, settings: PresenceSettings) -> None:
        """``settings``: of them a backend needs the ``url`` at most."""
        self.settings = settings

    @abstractmethod
    def renew_lease(self, server: str, seconds: float) -> bool:
        """Hold the lease of a server for so long. False: it had none, so nobody is in any room.

        Precedes the first ``enter``; after a False the server enters all its connections again.
        """

    @abstractmethod
    def enter(self, entry: PresenceEntry, *, create: bool = True) -> EnterResult | None:
        """Put a connection into a room, again to change its name or state.

        None where ``create`` is False and nobody is there.
        """

    @abstractmethod
    def leave(self, key: RoomKey, connection: str) -> PresenceChange | None:
        """Take a connection out; the departure, where its member has no other there."""

    @abstractmethod
    def mark_disconnected(self, places: Sequence[RoomConnection], seconds: float) -> None:
        """These connections are lost: they leave after so long, unless they enter again."""

    @abstractmethod
    def set_state(
        self, key: RoomKey, connection: str, state: dict[str, Any]
    ) -> PresenceChange | None:
        """Set the state of this connection's member. None: it is not there, or as it was."""

    @abstractmethod
    def list_members(self, key: RoomKey) -> MemberList:
        """Who is in a room."""

    @abstractmethod
    def get_room(self, key: RoomKey) -> RoomInfo | None:
        """About a room; None for one in which nobody is."""

    @abstractmethod
    def versions(self, keys: Iterable[RoomKey]) -> dict[RoomKey, int]:
        """The versions of those rooms in which somebody is."""

    @abstractmethod
    def expire(self) -> list[PresenceChange]:
        """Remove connections whose time, or whose server's lease, is over. The departures."""

    @abstractmethod
    def list_rooms(self, project: str) -> list[RoomListing]:
        """The rooms of a project in which somebody is, by name."""

    @abstractmethod
    def acquire_key(self, name: str, seconds: float) -> bool:
        """Whether nobody has claimed ``name`` within the last ``seconds``; now somebody has."""

    @abstractmethod
    def release_key(self, name: str) -> None:
        """Take a claim back."""

    def close(self) -> None:  # noqa: B027 - most hold none
        """Give up connections; called by tests. The next call opens them again."""


BACKENDS = {
    "database": "django_cocobase_realtime.presence.database.DatabasePresence",
    "memory": "django_cocobase_realtime.presence.memory.MemoryPresence",
    "redis": "django_cocobase_realtime.presence.redis.RedisPresence",
}


@lru_cache(maxsize=16)
def _backend(path: str, settings: PresenceSettings) -> PresenceBackend:
    made: PresenceBackend = import_string(BACKENDS.get(path, path))(settings)
    return made


def get_backend() -> PresenceBackend:
    """The backend of this process, as ``PRESENCE`` says."""
    settings = conf.presence
    return _backend(settings.backend, settings)
