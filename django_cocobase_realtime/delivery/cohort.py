"""Cohorts: groups of subscriptions for which a change is matched and encoded only once.

Subscriptions share a cohort if their filters are equal and each change gives them equal frames.
For a change, the filter is evaluated once and the frame is encoded once; only the sending is done
for each member.

A connection with several subscriptions to one collection gets one frame that names all those
that match. For such subscriptions the frame is built per connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from ..events import Change
from ..filters import Filter
from ..transport.connection import Connection
from ..transport.writer import Writer


@dataclass(frozen=True, slots=True, weakref_slot=True)
class FrameSpec:
    """The properties that decide which frames a subscription gets, apart from its filter.

    A `SubscriptionTable` keeps one object for all equal specs, so that they can be compared by
    identity.
    """

    # of the connection, see `Connection.dialect`
    dialect: str
    # the collection's name as the client knows it
    collection: str
    # names in ``data``; None for a serializer's whole document
    fields: tuple[str, ...] | None
    # names of the subscriptions that the frame is for
    subscriptions: tuple[str, ...]
    # events to deliver: created, updated, deleted
    events: frozenset[str]
    # whether an update after which a row begins or ceases to match is delivered as "entered" or
    # "left"
    transitions: bool
    # deliver an update only if one of these fields changed; None for all updates
    changed: frozenset[str] | None

    def event_for(self, change: Change, matched: bool, matches: bool) -> str | None:
        """Return the name of the event to deliver for a change, or None.

        ``matched`` is whether the row before the change matched the filter, and ``matches``
        whether the row after it does.
        """
        match change.op:
            case "created":
                return "created" if matches and "created" in self.events else None
            case "deleted":
                return "deleted" if matched and "deleted" in self.events else None
        if self.transitions and matched is not matches and change.before is not None:
            return "entered" if matches else "left"
        if not matches or "updated" not in self.events:
            return None
        if self.changed is not None and change.changed is not None:
            return None if self.changed.isdisjoint(change.changed) else "updated"
        return "updated"


class DeliveryMode(Enum):
    """How a change is delivered to the members of a cohort."""

    # all members get the same frame
    DIRECT = "direct"
    # a frame is built for each connection, and names its matching subscriptions
    PER_CONNECTION = "per_connection"
    # a row permission decides first, in a worker thread
    ROW_CHECKED = "row_checked"


class CohortMember(Protocol):
    """The attributes of a subscription that a cohort uses."""

    @property
    def connection(self) -> Connection:
        """The connection that subscribed."""
        raise NotImplementedError


M = TypeVar("M", bound=CohortMember)


class Cohort(Generic[M]):
    """Subscriptions with the same filter, frame spec and delivery mode.

    If every client has a different filter, each cohort has one member. Such a cohort has no
    dictionary, which saves memory, and stores the member's writer, which saves time in a delivery.
    """

    __slots__ = ("filter", "frame_spec", "last_seq", "members", "mode", "writer")

    def __init__(self, filter: Filter, frame_spec: FrameSpec, mode: DeliveryMode) -> None:
        self.filter = filter
        self.frame_spec = frame_spec
        self.mode = mode
        # the only member, or a dictionary of members and their writers, or None if there is none
        self.members: M | dict[M, Writer] | None = None
        # the writer of the only member
        self.writer: Writer | None = None
        # number of the last event that was delivered to all members
        self.last_seq = 0

    def __iter__(self) -> Iterator[M]:
        members = self.members
        if isinstance(members, dict):
            return iter(members)
        return iter(() if members is None else (members,))

    def add(self, member: M) -> None:
        """Add a member, which must not be one already."""
        members, writer = self.members, member.connection.writer
        if members is None:
            self.members, self.writer = member, writer
            return
        if not isinstance(members, dict):
            members = self.members = {members: members.connection.writer}
            self.writer = None
        members[member] = writer

    def discard(self, member: M) -> bool:
        """Remove a member; return True if the cohort is now empty."""
        if isinstance(self.members, dict):
            del self.members[member]
            return not self.members
        self.members = self.writer = None
        return True

    def add_writers(self, writers: list[Writer]) -> None:
        """Append the writers of all members to ``writers``."""
        if self.writer is not None:
            writers.append(self.writer)
        elif isinstance(self.members, dict):
            writers += self.members.values()


class Recipients:
    """The writers of all connections that get the same frame for a change."""

    __slots__ = ("event", "frame_spec", "writers")

    def __init__(self, frame_spec: FrameSpec, event: str) -> None:
        self.frame_spec = frame_spec
        # name of the event to deliver, such as "updated"
        self.event = event
        self.writers: list[Writer] = []
