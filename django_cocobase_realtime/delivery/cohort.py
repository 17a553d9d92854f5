"""Subscriptions that a change concerns alike: the same filter, and frames of the same shape.

A change is judged, named and encoded once for all members of a crowd; what is left for each is a
push. A connection that watches a collection more than once gets one frame that names all of its
subscriptions, so its crowds are not ``solo``: their members are gathered by connection first.
What a permission's check must decide is neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..events import Change
from ..filters import Filter

if TYPE_CHECKING:
    from ..transport.writer import Writer
    from .table import Subscription


@dataclass(frozen=True, slots=True, weakref_slot=True)
class FrameSpec:
    """What frames depend on, and what decides whether there is one.

    Tables keep one of each, so that equal ones are the same.
    """

    dialect: str
    fields: tuple[str, ...] | None
    subscriptions: tuple[str, ...]
    events: frozenset[str]
    transitions: bool
    changed: frozenset[str] | None

    def event_of(self, change: Change, was: bool, now: bool) -> str | None:
        """What the change is to it: the row ``was`` in its set, is in it ``now``; None: nothing."""
        match change.op:
            case "created":
                return "created" if now and "created" in self.events else None
            case "deleted":
                return "deleted" if was and "deleted" in self.events else None
        if self.transitions and was is not now and change.before is not None:
            return "entered" if now else "left"
        if not now or "updated" not in self.events:
            return None
        if self.changed is not None and change.changed is not None:
            return None if self.changed.isdisjoint(change.changed) else "updated"
        return "updated"


Way = Literal["solo", "gathered", "checked"]


class Cohort:
    """``seen`` is the number of the last event that all of its members were told of.

    Where every subscriber asks for something of his own, crowds have one member: it takes no
    dictionary, and its ``writer`` stands here, so that telling it looks at nothing else.
    """

    __slots__ = ("filter", "members", "seen", "shape", "way", "writer")

    def __init__(self, filter: Filter, shape: FrameSpec, way: Way) -> None:
        self.filter = filter
        self.shape = shape
        self.way = way
        self.members: Subscription | dict[Subscription, Writer] | None = None
        self.writer: Writer | None = None
        self.seen = 0

    def __iter__(self) -> Iterator[Subscription]:
        held = self.members
        if isinstance(held, dict):
            return iter(held)
        return iter(() if held is None else (held,))

    def add(self, member: Subscription) -> None:
        """Take a member in that is not in yet."""
        held, writer = self.members, member.connection.writer
        if held is None:
            self.members, self.writer = member, writer
            return
        if not isinstance(held, dict):
            held = self.members = {held: held.connection.writer}
            self.writer = None
        held[member] = writer

    def discard(self, member: Subscription) -> bool:
        """Let a member go; True where nobody is left."""
        if isinstance(self.members, dict):
            del self.members[member]
            return not self.members
        self.members = self.writer = None
        return True

    def add_writers(self, writers: list[Writer]) -> None:
        """Add the writers of all members."""
        if self.writer is not None:
            writers.append(self.writer)
        elif isinstance(self.members, dict):
            writers += self.members.values()


class Recipients:
    """Writers that get the same event in the same shape."""

    __slots__ = ("event", "shape", "writers")

    def __init__(self, shape: FrameSpec, event: str) -> None:
        self.shape = shape
        self.event = event
        self.writers: list[Writer] = []
