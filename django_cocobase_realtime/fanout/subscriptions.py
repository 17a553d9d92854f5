"""What clients asked for, indexed so that an event finds those that match.

The cost of an event grows with the subscriptions that match it: an equality index proposes
filters (the client's and the permission's, combined), each is judged once, whatever the number
of subscriptions that share it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..events import Change, Image
from ..filters import Filter, FilterIndex, Row, Schema
from ..grants import Check
from ..log.cursor import Position
from .connection import NATIVE
from .crowds import Crowd, Shape, Told

if TYPE_CHECKING:
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
    one of these fields changed. ``asked`` is the request, to ask the permission again by.
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
    asked: bytes = b""
    rights: int = 0
    seen: int = 0
    starting: asyncio.Task[None] | None = None
    begin: Begin | None = None
    held: list[str] | None = None
    unchecked: deque[int] | None = None

    @property
    def shape(self) -> Shape:
        """What its frames look like, and when there is one."""
        return Shape(
            self.connection.dialect,
            self.view.fields,
            (self.name,),
            self.events,
            self.transitions,
            self.changed,
        )


Delivery = tuple[Subscription, str]
"""Who must be told, and the name of the event to it."""

CrowdKey = tuple[Filter, Shape, bool]


class SubscriptionTable:
    """The subscriptions of one process to one collection."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._literal: FilterIndex[Crowd] = FilterIndex()
        self._transitional: FilterIndex[Crowd] = FilterIndex()
        self._checked: FilterIndex[Subscription] = FilterIndex()
        self._crowds: dict[CrowdKey, Crowd] = {}
        self._shapes: WeakValueDictionary[Shape, Shape] = WeakValueDictionary()
        self._indexes = (self._literal, self._transitional, self._checked)
        self._homes: dict[Subscription, Crowd | None] = {}
        self._of: dict[Connection, dict[Subscription, None]] = {}

    def __len__(self) -> int:
        return len(self._homes)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._homes))

    def add(self, subscription: Subscription) -> None:
        """Let it hear from the next event on; again where what it sees or holds has changed."""
        self.discard(subscription)
        connection = subscription.connection
        known = next(filter(None, (i.known(subscription.view.filter) for i in self._indexes)), None)
        if known is not None:  # one of each is enough
            subscription.view = replace(subscription.view, filter=known)
        if subscription.view.check is not None:
            self._homes[subscription] = None
            self._checked.add(subscription, subscription.view.filter)
            return
        siblings = self._of.setdefault(connection, {})
        siblings[subscription] = None
        if len(siblings) == 2:
            for each in siblings:
                self._leave(each)
                self._enter(each, solo=False)
        else:
            self._enter(subscription, solo=len(siblings) == 1 and _alike(subscription))

    def discard(self, subscription: Subscription) -> None:
        """Let it hear no more; nothing where it was not there."""
        if subscription not in self._homes:
            return
        self._leave(subscription)
        del self._homes[subscription]
        self._checked.discard(subscription)
        siblings = self._of.get(subscription.connection)
        if siblings is None:
            return
        siblings.pop(subscription, None)
        if not siblings:
            del self._of[subscription.connection]
        elif len(siblings) == 1:
            (left,) = siblings
            self._leave(left)
            self._enter(left, solo=_alike(left))

    def _enter(self, subscription: Subscription, *, solo: bool) -> None:
        filter, shape = subscription.view.filter, subscription.shape
        shape = self._shapes.setdefault(shape, shape)
        key = (filter, shape, solo)
        crowd = self._crowds.get(key)
        if crowd is None:
            crowd = self._crowds[key] = Crowd(filter, shape, solo=solo)
            index = self._transitional if shape.transitions else self._literal
            index.add(crowd, filter)
        crowd.members[subscription] = subscription.connection.writer
        self._homes[subscription] = crowd

    def _leave(self, subscription: Subscription) -> None:
        crowd = self._homes.get(subscription)
        if crowd is None:
            return
        subscription.seen = max(subscription.seen, crowd.seen)
        self._homes[subscription] = None
        del crowd.members[subscription]
        if not crowd.members:
            del self._crowds[crowd.filter, crowd.shape, crowd.solo]
            self._literal.discard(crowd)
            self._transitional.discard(crowd)

    def seen(self, subscription: Subscription) -> int:
        """The number of the last event that a subscription was told of."""
        crowd = self._homes.get(subscription)
        return subscription.seen if crowd is None else max(subscription.seen, crowd.seen)

    def deliveries(self, change: Change) -> tuple[list[Told], list[Delivery]]:
        """Who must be told of this change, but for those whose ``check`` must be asked.

        First by the frame that all of them get; then those whose connection may get more of it.
        """
        before, after = self.row(change.before), self.row(change.after)
        gone = change.op == "deleted"
        judged = before if gone else after
        told: list[Told] = []
        single: list[Delivery] = []
        if judged is not None and len(self._literal):
            crowds = self._literal.matching(judged)
            told += _told(change, crowds, gone, not gone, single)
        if len(self._transitional):
            was = {} if before is None else dict.fromkeys(self._transitional.matching(before))
            now = {} if after is None else dict.fromkeys(self._transitional.matching(after))
            told += _told(change, [c for c in was if c in now], True, True, single)
            told += _told(change, [c for c in was if c not in now], True, False, single)
            told += _told(change, [c for c in now if c not in was], False, True, single)
        return told, single

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
        return subscription.shape.event_of(change, was, after is not None and matches(after))

    def row(self, image: Image | None) -> Row | None:
        """An image as filters see it."""
        return None if image is None else Row(image, self.schema)


def _alike(subscription: Subscription) -> bool:
    """Whether its frames are those of its shape: nothing is held, and no old row matters.

    The SDKs' frames also depend on whether the row matched before.
    """
    return subscription.held is None and subscription.connection.dialect == NATIVE


def _told(
    change: Change, crowds: Iterable[Crowd], was: bool, now: bool, single: list[Delivery]
) -> list[Told]:
    """Members of solo crowds by their shape; those of others are added to ``single``."""
    told: dict[Shape, Told | None] = {}
    last: Shape | None = None
    each: Told | None = None
    seq = change.seq or 0
    for crowd in crowds:
        shape = crowd.shape
        if shape is not last:  # mostly it is: a look at the dictionary hashes all of it
            last = shape
            if shape not in told:
                event = shape.event_of(change, was, now)
                told[shape] = None if event is None else Told(shape, event)
            each = told[shape]
        if each is None:
            continue
        if crowd.solo:
            crowd.seen = seq
            each.writers += crowd.members.values()
        else:
            single += [(subscription, each.event) for subscription in crowd.members]
    return [each for each in told.values() if each is not None and each.writers]
