"""Descriptions of connections, streams and rooms, which processes exchange."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class SubscriptionInfo:
    """A subscription of a connection."""

    # unique within the connection
    name: str
    # the collection's name as the client gave it
    collection: str
    # the client's filter; None if it is too long to be listed
    filters: dict[str, Any] | None
    # whether the client gets events, or the result of a live query
    kind: Literal["events", "window", "aggregate"]
    # number of events of the collection that it has not handled yet: 0 if it is live, and None if
    # it waits for its first snapshot or result
    lag: int | None
    # id of the only document that the client asked for, or None
    document: str | None = None


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """An authenticated connection of a server process."""

    # unique among all connections of all processes
    id: str
    # the process that has the connection, as ``HOST:PID``
    server: str
    # `Identity.user_key`; None for apps and visitors
    user_id: str | None
    # the name that other clients see
    user_name: str
    # ``key:PREFIX``, or the kind of the credential, such as ``session`` or ``jwt``
    credential: str
    project: str
    # IP address of the client
    address: str
    # when the connection was opened; aware, in UTC
    connected_at: datetime
    # ``native``, or the dialect of an SDK
    dialect: str
    subscriptions: tuple[SubscriptionInfo, ...]
    # names of the rooms that it has joined
    rooms: tuple[str, ...]
    # memory and number of the frames that wait because the client reads too slowly
    queue_bytes: int
    queue_frames: int


@dataclass(frozen=True, slots=True)
class ServerSummary:
    """Totals of one server process."""

    # as in `ConnectionInfo.server`
    server: str
    # authenticated connections, and their subscriptions
    connections: int
    subscriptions: int
    # rooms that connections have joined, without that of the admin's pages
    rooms: int
    # memory of the frames that wait for slow clients
    queue_bytes: int


@dataclass(frozen=True, slots=True)
class FollowerInfo:
    """The position of one server process in a stream."""

    stream: str
    server: str
    epoch: str
    # number of the last event that it has delivered
    seq: int


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """The stream of a collection, or a hidden one, and the server processes that follow it."""

    # name of the collection; that of a hidden stream begins with ``$``
    name: str
    # alias of the database
    database: str
    epoch: str
    # number of the last event, and of the last one that was deleted from the log
    head: int
    floor: int
    # number of committed events that have no number yet
    unnumbered: int
    # events of the last minute; an estimate from the last `RATE_EVENTS` if there were more
    rate: int
    # number of server processes that follow it
    followers: int
    # number of events that the slowest of them has not delivered
    lag: int


@dataclass(frozen=True, slots=True)
class RoomMemberInfo:
    """A member of a room."""

    # unique in the room
    id: str
    # displayed name
    name: str


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """A room that connections have joined."""

    project: str
    name: str
    title: str
    # number of members, in all processes
    participants: int
    # the first of them
    members: tuple[RoomMemberInfo, ...]
    # number of connections in it, also those without presence
    connections: int
    # version of the list of members
    version: int
