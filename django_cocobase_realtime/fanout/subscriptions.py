"""What clients asked for, indexed so that an event finds those that match.

The cost of an event grows with the subscriptions that match it: an equality index proposes
candidates, then each one's own filter (the client's and the permission's, combined) decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..events import Change
from ..filters import Filter, FilterIndex, Row, Schema

if TYPE_CHECKING:
    from .connection import Connection

EVENTS = frozenset({"created", "updated", "deleted"})


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One connection's wish to hear of a collection.

    ``filter`` is what the client asked for AND what the permission allows. ``fields`` are the
    names that go into ``data``, sorted, or None for a serializer's whole document. ``asked`` is
    the client's filter as it was sent, for the reply.
    """

    connection: Connection
    name: str
    collection: str
    filter: Filter
    fields: tuple[str, ...] | None
    events: frozenset[str] = EVENTS


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

    def matching(self, change: Change) -> Iterator[Subscription]:
        """Subscriptions that must see this change, by the row as it is after it.

        A deletion is judged by the row as it was before.
        """
        image = change.before if change.op == "deleted" else change.after
        if image is None:
            return
        row = Row(image, self.schema)
        for subscription in self._index.candidates(row):
            if change.op in subscription.events and subscription.filter.matches(row):
                yield subscription
