"""Who listens to one collection in this process, and how a change reaches them."""

from __future__ import annotations

from collections.abc import Iterable

from ..collection import Collection
from ..conf import conf
from ..events import Change
from ..lifecycle import as_seen
from ..wire.codes import CloseCode
from .checks import Checks
from .connection import Connection
from .frames import ChangeFrames, cursor_of
from .subscriptions import Delivery, Subscription, SubscriptionTable


class Audience:
    """A collection's subscriptions, and the delivery of its changes. Belongs to one event loop."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.table = SubscriptionTable(collection.schema)
        self._checks = Checks(collection, self._send)

    def stop(self) -> None:
        """Deliver nothing more."""
        self._checks.stop()

    def tell(self, change: Change) -> None:
        """Hand a change to everyone here who must see it: no database, no waiting."""
        seen = as_seen(change, self.collection)
        if seen is None:
            return
        self._send(seen, self.table.deliveries(seen))
        asked = self.table.unchecked(seen)
        if asked:
            self._checks.put(seen, asked)

    def _send(self, change: Change, deliveries: Iterable[Delivery]) -> None:
        matched: dict[Connection, list[Delivery]] = {}
        for delivery in deliveries:
            matched.setdefault(delivery[0].connection, []).append(delivery)
        limits, cursor = conf.limits, cursor_of(change)
        frames = ChangeFrames(change, limits.event_bytes)
        for connection, each in matched.items():
            for subscription, _ in each:
                subscription.seen = change.seq or 0
            live = [d for d in each if d[0].held is None]
            for text in frames.texts(live):
                connection.writer.push(text)
            if connection.overdrawn(cursor, limits.unacked_events):
                connection.close(CloseCode.SLOW_CONSUMER)
            for delivery in each:
                if delivery[0].held is not None:
                    self._hold(delivery[0], frames.texts([delivery]))

    def _hold(self, subscription: Subscription, texts: list[str]) -> None:
        held = subscription.held
        if held is not None:
            held += texts
            if len(held) > conf.limits.queue_messages:
                subscription.connection.close(CloseCode.SLOW_CONSUMER)
