"""What clients asked for, indexed so that an event finds those that match.

The cost of an event grows with the subscriptions that match it: an equality index proposes
candidates, then each one's own filter (the client's and the permission's, combined) decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..events import Change
from ..filters import Filter, FilterIndex, Row, Schema

if TYPE_CHECKING:
    from .connection import Connection

EVENTS = frozenset({"created", "updated", "deleted"})


@dataclass(slots=True, eq=False)
class Subscription:
    """One connection's wish to hear of a collection.

    ``filter`` is what the client asked for AND what the permission allows. ``fields`` are the
    names that go into ``data``, or None for a serializer's whole document. ``seen`` is the number
    of the last event that it was told of, ``starting`` the task that brings it up to date first,
    ``held`` what must wait for the end of a snapshot where no log keeps it.
    """

    connection: Connection
    name: str
    collection: str
    filter: Filter
    fields: tuple[str, ...] | None
    events: frozenset[str] = EVENTS
    seen: int = 0
    starting: asyncio.Task[None] | None = None
    held: list[str] | None = None

    def wants(self, change: Change, row: Row) -> bool:
        """Whether it must see a change that left (or found) the row so."""
        return change.op in self.events and self.filter.matches(row)


class SubscriptionTable:
    """The subscriptions of one process to one collection."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._index: FilterIndex[Subscription] = FilterIndex()

    def __len__(self) -> int:
        return len(self._index)

    def add(self, subscription: Subscription) -> None:
        """Let it hear from the next event on."""
        self._index.add(subscription, subscription.filter)

    def discard(self, subscription: Subscription) -> None:
        """Let it hear no more; nothing where it was not there."""
        self._index.discard(subscription)

    def row(self, change: Change) -> Row | None:
        """The row by which a change is judged: as it is after it, before it for a deletion."""
        image = change.before if change.op == "deleted" else change.after
        return None if image is None else Row(image, self.schema)

    def matching(self, change: Change) -> Iterator[Subscription]:
        """Subscriptions that must see this change."""
        row = self.row(change)
        if row is None:
            return
        for subscription in self._index.candidates(row):
            if subscription.wants(change, row):
                yield subscription

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self._index)
