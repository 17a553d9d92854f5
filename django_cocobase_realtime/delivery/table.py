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

from ..declarations.authorization import Check
from ..events import Change, Image
from ..filters import Filter, FilterIndex, Row, Schema
from ..log.cursor import Position
from ..transport.connection import NATIVE
from ..utils.small_set import Few, each, put, size, take
from .cohort import Crowd, Shape, Told, Way

if TYPE_CHECKING:
    from ..transport.connection import Connection

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

    ``crowd`` is where it hears, None where nowhere.

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
    crowd: Crowd | None = None
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


class SubscriptionTable:
    """The subscriptions of one process to one collection."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._literal: FilterIndex[Crowd] = FilterIndex()
        self._transitional: FilterIndex[Crowd] = FilterIndex()
        self._checked: FilterIndex[Crowd] = FilterIndex()
        self._crowds: dict[tuple[Filter, Shape, Way], Crowd] = {}
        self._shapes: WeakValueDictionary[Shape, Shape] = WeakValueDictionary()
        self._of: dict[Connection, Few[Subscription]] = {}

    def __iter__(self) -> Iterator[Subscription]:
        return iter([member for crowd in self._crowds.values() for member in crowd])

    def add(self, subscription: Subscription) -> None:
        """Let it hear from the next event on; again where what it sees or holds has changed."""
        self.discard(subscription)
        view, connection = subscription.view, subscription.connection
        indexes = (self._literal, self._transitional, self._checked)
        known = next(filter(None, (index.known(view.filter) for index in indexes)), None)
        if known is not None:  # one of each is enough
            subscription.view = replace(view, filter=known)
        if view.check is not None:
            self._enter(subscription, "checked")
            return
        put(self._of, connection, subscription)
        siblings = self._of[connection]
        match size(siblings):
            case 1:
                self._enter(subscription, _alone(subscription))
            case 2:
                for sibling in each(siblings):
                    self._leave(sibling)
                    self._enter(sibling, "gathered")
            case _:
                self._enter(subscription, "gathered")

    def discard(self, subscription: Subscription) -> None:
        """Let it hear no more; nothing where it was not there."""
        crowd = subscription.crowd
        if crowd is None:
            return
        self._leave(subscription)
        if crowd.way == "checked":
            return
        take(self._of, subscription.connection, subscription)
        siblings = self._of.get(subscription.connection)
        if size(siblings) == 1:
            (left,) = each(siblings)
            self._leave(left)
            self._enter(left, _alone(left))

    def _enter(self, subscription: Subscription, way: Way) -> None:
        filter, shape = subscription.view.filter, subscription.shape
        shape = self._shapes.setdefault(shape, shape)
        key = (filter, shape, way)
        crowd = self._crowds.get(key)
        if crowd is None:
            crowd = self._crowds[key] = Crowd(*key)
            self._index(crowd).add(crowd, filter)
        crowd.add(subscription)
        subscription.crowd = crowd

    def _leave(self, subscription: Subscription) -> None:
        crowd = subscription.crowd
        if crowd is None:
            return
        subscription.seen = max(subscription.seen, crowd.seen)
        subscription.crowd = None
        if crowd.discard(subscription):
            del self._crowds[crowd.filter, crowd.shape, crowd.way]
            self._index(crowd).discard(crowd, crowd.filter)

    def _index(self, crowd: Crowd) -> FilterIndex[Crowd]:
        if crowd.way == "checked":
            return self._checked
        return self._transitional if crowd.shape.transitions else self._literal

    def seen(self, subscription: Subscription) -> int:
        """The number of the last event that a subscription was told of."""
        crowd = subscription.crowd
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
        if judged is not None and self._literal:
            crowds = self._literal.matching(judged)
            told += _told(change, crowds, gone, not gone, single)
        if self._transitional:
            was = {} if before is None else dict.fromkeys(self._transitional.matching(before))
            now = {} if after is None else dict.fromkeys(self._transitional.matching(after))
            told += _told(change, [c for c in was if c in now], True, True, single)
            told += _told(change, [c for c in was if c not in now], True, False, single)
            told += _told(change, [c for c in now if c not in was], False, True, single)
        return told, single

    def unchecked(self, change: Change) -> list[Subscription]:
        """Those whose ``check`` must be asked: their filter holds the row, before or after."""
        if not self._checked:
            return []
        found: dict[Crowd, None] = {}
        for row in (self.row(change.before), self.row(change.after)):
            if row is not None:
                found |= dict.fromkeys(self._checked.matching(row))
        return [member for crowd in found for member in crowd]

    def event_to(self, subscription: Subscription, change: Change) -> str | None:
        """What the change is to one subscription, by its filter alone."""
        before, after = self.row(change.before), self.row(change.after)
        matches = subscription.view.filter.matches
        was = before is not None and matches(before)
        return subscription.shape.event_of(change, was, after is not None and matches(after))

    def row(self, image: Image | None) -> Row | None:
        """An image as filters see it."""
        return None if image is None else Row(image, self.schema)


def _alone(subscription: Subscription) -> Way:
    """Solo where its frames are those of its shape: nothing is held, and no old row matters.

    The SDKs' frames also depend on whether the row matched before.
    """
    alike = subscription.held is None and subscription.connection.dialect == NATIVE
    return "solo" if alike else "gathered"


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
        if crowd.way == "solo":
            crowd.seen = seq
            crowd.tell(each.writers)
        else:
            single += [(subscription, each.event) for subscription in crowd]
    return [each for each in told.values() if each is not None and each.writers]
