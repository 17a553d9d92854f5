"""What clients asked for, indexed so that an event finds those that match.

The cost of an event grows with the subscriptions that match it: an equality index proposes
filters (the client's and the permission's, combined), each is judged once, whatever the number
of subscriptions that share it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..events import Change, Image
from ..filters import Filter, FilterIndex, Row, Schema
from ..grants import Check
from ..log.cursor import Position

if TYPE_CHECKING:
    from ..identity import Identity
    from .connection import Connection

EVENTS = frozenset({"created", "updated", "deleted"})


@dataclass(frozen=True, slots=True)
class View:
    """What a subscription may see, as its identity's rights were when it was asked.

    ``filter`` is what the client asked for AND what the permission allows; ``check`` decides
    about single rows of it, slowly. ``fields`` are the names that go into ``data``, None for a
    serializer's whole document. ``scope`` is a hash of all this.
    """

    filter: Filter
    fields: tuple[str, ...] | None
    scope: str = ""
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which documents: ``limit`` of them at most, in ``order`` (a field, with ``-`` downwards)."""

    limit: int
    order: str | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """How a subscription is brought up to date: documents first, then what came ``after``."""

    after: Position | None = None
    wanted: Wanted | None = None


@dataclass(slots=True, eq=False)
class Subscription:
    """One connection's wish to hear of a collection.

    ``events`` are the wanted ones; with ``transitions`` an update that brings a document into the
    set is ``entered``, one that takes it out ``left``. With ``changed``, an update matters only if
    one of these fields changed. ``again`` asks the permission anew: None where it refuses now.
    ``rights`` counts, with its connection's, how often rights may have changed.

    ``seen`` is the number of the last event that it was told of, ``starting`` the task that
    brings it up to date first, ``begin`` what that has yet to do, ``held`` what must wait for the
    end of a snapshot where no log keeps it, ``unchecked`` the numbers of events that its ``check``
    has not decided yet.
    """

    connection: Connection
    name: str
    collection: str
    view: View
    events: frozenset[str] = EVENTS
    transitions: bool = False
    changed: frozenset[str] | None = None
    again: Callable[[Identity], View | None] | None = None
    rights: int = 0
    seen: int = 0
    starting: asyncio.Task[None] | None = None
    begin: Begin | None = None
    held: list[str] | None = None
    unchecked: deque[int] = field(default_factory=deque)

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


Delivery = tuple[Subscription, str]
"""Who must be told, and the name of the event to it."""


class SubscriptionTable:
    """The subscriptions of one process to one collection."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._literal: FilterIndex[Subscription] = FilterIndex()
        self._transitional: FilterIndex[Subscription] = FilterIndex()
        self._checked: FilterIndex[Subscription] = FilterIndex()

    def __len__(self) -> int:
        return sum(map(len, self._indexes))

    def __iter__(self) -> Iterator[Subscription]:
        for index in self._indexes:
            yield from index

    @property
    def _indexes(self) -> tuple[FilterIndex[Subscription], ...]:
        return self._literal, self._transitional, self._checked

    def add(self, subscription: Subscription) -> None:
        """Let it hear from the next event on."""
        if subscription.view.check is not None:
            index = self._checked
        else:
            index = self._transitional if subscription.transitions else self._literal
        index.add(subscription, subscription.view.filter)

    def discard(self, subscription: Subscription) -> None:
        """Let it hear no more; nothing where it was not there."""
        for index in self._indexes:
            index.discard(subscription)

    def deliveries(self, change: Change) -> Iterator[Delivery]:
        """Who must be told of this change, but for those whose ``check`` must be asked."""
        before, after = self.row(change.before), self.row(change.after)
        judged = before if change.op == "deleted" else after
        if judged is not None:
            gone = change.op == "deleted"
            for subscription in self._literal.matching(judged):
                event = subscription.event_of(change, gone, not gone)
                if event is not None:
                    yield subscription, event
        if len(self._transitional):
            was = {} if before is None else dict.fromkeys(self._transitional.matching(before))
            now = {} if after is None else dict.fromkeys(self._transitional.matching(after))
            for subscription in was | now:
                event = subscription.event_of(change, subscription in was, subscription in now)
                if event is not None:
                    yield subscription, event

    def unchecked(self, change: Change) -> list[Subscription]:
        """Those whose ``check`` must be asked: their filter holds the row, before or after."""
        if not len(self._checked):
            return []
        found: dict[Subscription, None] = {}
        for row in (self.row(change.before), self.row(change.after)):
            if row is not None:
                found |= dict.fromkeys(self._checked.matching(row))
        return list(found)

    def event_to(self, subscription: Subscription, change: Change) -> str | None:
        """What the change is to one subscription, by its filter alone."""
        before, after = self.row(change.before), self.row(change.after)
        matches = subscription.view.filter.matches
        was = before is not None and matches(before)
        return subscription.event_of(change, was, after is not None and matches(after))

    def row(self, image: Image | None) -> Row | None:
        """An image as filters see it."""
        return None if image is None else Row(image, self.schema)
