"""Cohorts: subscriptions that a change concerns in the same way.

Subscriptions with equal filters and frames of the same form share a cohort: a change is matched
against the filter and encoded once for all of them, and one push per member remains.

A connection with several subscriptions to one collection gets one frame that names all that
match. Its subscriptions are therefore delivered per connection, not directly.
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
    """Everything that decides what a subscription's frames look like, and if there is one.

    A table keeps one object per value, so that equal specs can be compared by identity.
    """

    dialect: str
    # the collection's name as the client knows it
    collection: str
    # names in ``data``; None for a serializer's whole document
    fields: tuple[str, ...] | None
    # names of the subscriptions in the frame
    subscriptions: tuple[str, ...]
    # events that are delivered: created, updated, deleted
    events: frozenset[str]
    # whether updates that cross the filter's border are delivered as entered and left
    transitions: bool
    # an update is delivered only if one of these fields changed; None for any
    changed: frozenset[str] | None

    def event_for(self, change: Change, matched: bool, matches: bool) -> str | None:
        """Return the name of the event to deliver, or None for no event.

        ``matched``: the row before the change was visible. ``matches``: the row after it is.
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
    """How the members of a cohort are reached."""

    # one frame, encoded once, to the writers of all members
    DIRECT = "direct"
    # matching subscriptions of one connection share a frame
    PER_CONNECTION = "per_connection"
    # the permission must look at each row first
    ROW_CHECKED = "row_checked"


class CohortMember(Protocol):
    """What a cohort needs to know of a subscription."""

    @property
    def connection(self) -> Connection:
        """The subscriber."""
        raise NotImplementedError


M = TypeVar("M", bound=CohortMember)


class Cohort(Generic[M]):
    """Subscriptions with the same filter, frame spec and delivery mode.

    If every subscriber asks for something different, cohorts have one member each. Such a cohort
    needs no dictionary, and keeps its member's writer, so that a delivery looks at nothing else.
    """

    __slots__ = ("filter", "frame_spec", "last_seq", "members", "mode", "writer")

    def __init__(self, filter: Filter, frame_spec: FrameSpec, mode: DeliveryMode) -> None:
        self.filter = filter
        self.frame_spec = frame_spec
        self.mode = mode
        # the only member, or members with their writers, or None for no member
        self.members: M | dict[M, Writer] | None = None
        # the only member's writer
        self.writer: Writer | None = None
        # number of the last event that was delivered to all members
        self.last_seq = 0

    def __iter__(self) -> Iterator[M]:
        members = self.members
        if isinstance(members, dict):
            return iter(members)
        return iter(() if members is None else (members,))

    def add(self, member: M) -> None:
        """Add a subscription that is not a member yet."""
        members, writer = self.members, member.connection.writer
        if members is None:
            self.members, self.writer = member, writer
            return
        if not isinstance(members, dict):
            members = self.members = {members: members.connection.writer}
            self.writer = None
        members[member] = writer

    def discard(self, member: M) -> bool:
        """Remove a member. Return True if no member is left."""
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
    """Writers that get the same frame."""

    __slots__ = ("event", "frame_spec", "writers")

    def __init__(self, frame_spec: FrameSpec, event: str) -> None:
        self.frame_spec = frame_spec
        # name of the event
        self.event = event
        self.writers: list[Writer] = []
