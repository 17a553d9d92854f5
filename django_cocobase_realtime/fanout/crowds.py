"""Subscriptions that a change concerns alike: the same filter, and frames of the same shape.

A change is judged, named and encoded once for all members of a crowd; what is left for each is a
push. A connection that watches a collection more than once gets one frame that names all of its
subscriptions, so its crowds are not ``solo``: their members are gathered by connection first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..events import Change
from ..filters import Filter

if TYPE_CHECKING:
    from .subscriptions import Subscription
    from .writer import Writer


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Shape:
    """What frames depend on, and what decides whether there is one.

    Tables keep one of each, so that equal ones are the same.
    """

    dialect: str
    fields: tuple[str, ...] | None
    names: tuple[str, ...]
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


class Crowd:
    """``seen`` is the number of the last event that all of its members were told of."""

    __slots__ = ("filter", "members", "seen", "shape", "solo")

    def __init__(self, filter: Filter, shape: Shape, *, solo: bool) -> None:
        self.filter = filter
        self.shape = shape
        self.solo = solo
        self.members: dict[Subscription, Writer] = {}
        self.seen = 0


class Told:
    """Writers that get the same event in the same shape."""

    __slots__ = ("event", "shape", "writers")

    def __init__(self, shape: Shape, event: str) -> None:
        self.shape = shape
        self.event = event
        self.writers: list[Writer] = []
