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

from ..declarations.authorization import RowCheck
from ..events import Change, Image
from ..filters import Filter, FilterIndex, Row, Schema
from ..log.cursor import Position
from ..transport.connection import NATIVE
from ..utils.small_set import SmallSet, add_to, items, length, remove_from
from .cohort import Cohort, FrameSpec, Recipients, Way

if TYPE_CHECKING:
    from ..transport.connection import Connection

EVENTS = frozenset({"created", "updated", "deleted"})


@dataclass(frozen=True, slots=True)
class AuthorizedQuery:
    """What a subscription may see, as its identity's rights were when it was asked.

    ``filter`` is what the client asked for AND what the permission allows; ``check`` decides
    about single rows of it, slowly. ``fields`` are the names that go into ``data``, None for a
    serializer's whole document. ``scope`` is a hash of all this.
    """

    filter: Filter
    fields: tuple[str, ...] | None
    scope: str = ""
    check: RowCheck | None = None


@dataclass(frozen=True, slots=True)
class SnapshotQuery:
    """Which documents: ``limit`` of them at most, in ``order`` (a field, with ``-`` downwards)."""

    limit: int
    order: str | None = None


@dataclass(frozen=True, slots=True)
class CatchUpPlan:
    """How a subscription is brought up to date: documents first, then what came ``after``."""

    after: Position | None = None
    snapshot: SnapshotQuery | None = None


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
    query: AuthorizedQuery
    events: frozenset[str] = EVENTS
    transitions: bool = False
    changed: frozenset[str] | None = None
    request: bytes = b""
    permissions_version: int = 0
    cohort: Cohort | None = None
    last_seq: int = 0
    catchup_task: asyncio.Task[None] | None = None
    plan: CatchUpPlan | None = None
    buffered: list[str] | None = None
    pending_row_checks: deque[int] | None = None

    @property
    def frame_spec(self) -> FrameSpec:
        """What its frames look like, and when there is one."""
        return FrameSpec(
            self.connection.dialect,
            self.query.fields,
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
        self._plain: FilterIndex[Cohort] = FilterIndex()
        self._transitions: FilterIndex[Cohort] = FilterIndex()
        self._row_checked: FilterIndex[Cohort] = FilterIndex()
        self._cohorts: dict[tuple[Filter, FrameSpec, Way], Cohort] = {}
        self._frame_specs: WeakValueDictionary[FrameSpec, FrameSpec] = WeakValueDictionary()
        self._by_connection: dict[Connection, SmallSet[Subscription]] = {}

    def __iter__(self) -> Iterator[Subscription]:
        return iter([member for crowd in self._cohorts.values() for member in crowd])

    def add(self, subscription: Subscription) -> None:
        """Let it hear from the next event on; again where what it sees or holds has changed."""
        self.discard(subscription)
        view, connection = subscription.query, subscription.connection
        indexes = (self._plain, self._transitions, self._row_checked)
        known = next(filter(None, (index.find_equal(view.filter) for index in indexes)), None)
        if known is not None:  # one of each is enough
            subscription.query = replace(view, filter=known)
        if view.check is not None:
            self._add_to_cohort(subscription, "checked")
            return
        add_to(self._by_connection, connection, subscription)
        siblings = self._by_connection[connection]
        match length(siblings):
            case 1:
                self._add_to_cohort(subscription, _single_mode(subscription))
            case 2:
                for sibling in items(siblings):
                    self._remove_from_cohort(sibling)
                    self._add_to_cohort(sibling, "gathered")
            case _:
                self._add_to_cohort(subscription, "gathered")

    def discard(self, subscription: Subscription) -> None:
        """Let it hear no more; nothing where it was not there."""
        crowd = subscription.cohort
        if crowd is None:
            return
        self._remove_from_cohort(subscription)
        if crowd.way == "checked":
            return
        remove_from(self._by_connection, subscription.connection, subscription)
        siblings = self._by_connection.get(subscription.connection)
        if length(siblings) == 1:
            (left,) = items(siblings)
            self._remove_from_cohort(left)
            self._add_to_cohort(left, _single_mode(left))

    def _add_to_cohort(self, subscription: Subscription, way: Way) -> None:
        filter, shape = subscription.query.filter, subscription.frame_spec
        shape = self._frame_specs.setdefault(shape, shape)
        key = (filter, shape, way)
        crowd = self._cohorts.get(key)
        if crowd is None:
            crowd = self._cohorts[key] = Cohort(*key)
            self._index(crowd).add(crowd, filter)
        crowd.add(subscription)
        subscription.cohort = crowd

    def _remove_from_cohort(self, subscription: Subscription) -> None:
        crowd = subscription.cohort
        if crowd is None:
            return
        subscription.last_seq = max(subscription.last_seq, crowd.seen)
        subscription.cohort = None
        if crowd.discard(subscription):
            del self._cohorts[crowd.filter, crowd.shape, crowd.way]
            self._index(crowd).discard(crowd, crowd.filter)

    def _index(self, crowd: Cohort) -> FilterIndex[Cohort]:
        if crowd.way == "checked":
            return self._row_checked
        return self._transitions if crowd.shape.transitions else self._plain

    def last_seq(self, subscription: Subscription) -> int:
        """The number of the last event that a subscription was told of."""
        crowd = subscription.cohort
        return subscription.last_seq if crowd is None else max(subscription.last_seq, crowd.seen)

    def find_recipients(self, change: Change) -> tuple[list[Recipients], list[Delivery]]:
        """Who must be told of this change, but for those whose ``check`` must be asked.

        First by the frame that all of them get; then those whose connection may get more of it.
        """
        before, after = self.row(change.before), self.row(change.after)
        gone = change.op == "deleted"
        judged = before if gone else after
        told: list[Recipients] = []
        single: list[Delivery] = []
        if judged is not None and self._plain:
            crowds = self._plain.matching(judged)
            told += _collect_recipients(change, crowds, gone, not gone, single)
        if self._transitions:
            was = {} if before is None else dict.fromkeys(self._transitions.matching(before))
            now = {} if after is None else dict.fromkeys(self._transitions.matching(after))
            told += _collect_recipients(change, [c for c in was if c in now], True, True, single)
            told += _collect_recipients(
                change, [c for c in was if c not in now], True, False, single
            )
            told += _collect_recipients(
                change, [c for c in now if c not in was], False, True, single
            )
        return told, single

    def find_row_checked(self, change: Change) -> list[Subscription]:
        """Those whose ``check`` must be asked: their filter holds the row, before or after."""
        if not self._row_checked:
            return []
        found: dict[Cohort, None] = {}
        for row in (self.row(change.before), self.row(change.after)):
            if row is not None:
                found |= dict.fromkeys(self._row_checked.matching(row))
        return [member for crowd in found for member in crowd]

    def event_for(self, subscription: Subscription, change: Change) -> str | None:
        """What the change is to one subscription, by its filter alone."""
        before, after = self.row(change.before), self.row(change.after)
        matches = subscription.query.filter.matches
        was = before is not None and matches(before)
        return subscription.frame_spec.event_of(change, was, after is not None and matches(after))

    def row(self, image: Image | None) -> Row | None:
        """An image as filters see it."""
        return None if image is None else Row(image, self.schema)


def _single_mode(subscription: Subscription) -> Way:
    """Solo where its frames are those of its shape: nothing is held, and no old row matters.

    The SDKs' frames also depend on whether the row matched before.
    """
    alike = subscription.buffered is None and subscription.connection.dialect == NATIVE
    return "solo" if alike else "gathered"


def _collect_recipients(
    change: Change, crowds: Iterable[Cohort], was: bool, now: bool, single: list[Delivery]
) -> list[Recipients]:
    """Members of solo crowds by their shape; those of others are added to ``single``."""
    told: dict[FrameSpec, Recipients | None] = {}
    last: FrameSpec | None = None
    each: Recipients | None = None
    seq = change.seq or 0
    for crowd in crowds:
        shape = crowd.shape
        if shape is not last:  # mostly it is: a look at the dictionary hashes all of it
            last = shape
            if shape not in told:
                event = shape.event_of(change, was, now)
                told[shape] = None if event is None else Recipients(shape, event)
            each = told[shape]
        if each is None:
            continue
        if crowd.way == "solo":
            crowd.seen = seq
            crowd.add_writers(each.writers)
        else:
            single += [(subscription, each.event) for subscription in crowd]
    return [each for each in told.values() if each is not None and each.writers]
