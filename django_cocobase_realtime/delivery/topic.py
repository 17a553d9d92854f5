"""Who listens to one collection in this process, and how a change reaches them."""

from __future__ import annotations

from collections.abc import Iterable

from ..conf import conf
from ..declarations.collection import Collection
from ..declarations.soft_delete import apply_soft_delete
from ..events import Change
from ..transport.connection import Connection
from ..transport.fan_out import fan_out
from ..wire.codes import CloseCode
from .event_frames import ChangeFrames
from .row_permissions import RowPermissionQueue
from .table import Delivery, Subscription, SubscriptionTable


class CollectionTopic:
    """A collection's subscriptions, and the delivery of its changes. Belongs to one event loop."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.table = SubscriptionTable(collection.schema)
        self._row_permissions = RowPermissionQueue(collection, self._checked)

    def stop(self) -> None:
        """Deliver nothing more."""
        self._row_permissions.stop()

    def dispatch(self, change: Change) -> None:
        """Hand a change to everyone here who must see it: no database, no waiting."""
        seen = apply_soft_delete(change, self.collection)
        if seen is None:
            return
        frames = ChangeFrames(seen, conf.limits.event_bytes)
        told, single = self.table.find_recipients(seen)
        for each in told:
            fan_out(each.writers, frames.text(each.shape, each.event), frames.cursor)
        if single:
            self._send(frames, single, seen.seq or 0)
        asked = self.table.find_row_checked(seen)
        if asked:
            self._row_permissions.put(seen, asked)

    def _send(self, frames: ChangeFrames, deliveries: Iterable[Delivery], seq: int) -> None:
        """To connections for which several subscriptions may match, or something is held."""
        matched: dict[Connection, list[Delivery]] = {}
        for delivery in deliveries:
            matched.setdefault(delivery[0].connection, []).append(delivery)
        for connection, each in matched.items():
            for subscription, _ in each:
                subscription.last_seq = seq
            live = [d for d in each if d[0].buffered is None]
            for text in frames.texts(live):
                connection.writer.push_event(text, frames.cursor)
            for delivery in each:
                if delivery[0].buffered is not None:
                    self._hold(delivery[0], frames.texts([delivery]))

    def _checked(self, change: Change, deliveries: list[Delivery]) -> None:
        self._send(ChangeFrames(change, conf.limits.event_bytes), deliveries, change.seq or 0)

    def _hold(self, subscription: Subscription, texts: list[str]) -> None:
        held = subscription.buffered
        if held is not None:
            held += texts
            if len(held) > conf.limits.queue_messages:
                subscription.connection.close(CloseCode.SLOW_CONSUMER)
