"""The collections that this process follows, for as long as somebody here is subscribed to one.

For each an `Audience`, and, where a log is kept, a `Feed` that sees to it that nothing is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..declarations.collection import Collection
from ..declarations.registry import registry
from ..events import Change
from ..log.reader import StreamRange
from ..pubsub.groups import JOIN_TIMEOUT, JOIN_TIMEOUT_DURABLE
from ..pubsub.names import collection_group
from ..utils.concurrency import DatabaseThread
from ..wire.codes import CloseCode
from .tailer import LogTailer
from .topic import CollectionTopic

if TYPE_CHECKING:
    from ..hub.hub import Hub


class TopicManager:
    """One a hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.topics: dict[str, CollectionTopic] = {}
        self.tailers: dict[str, LogTailer] = {}
        self.threads: dict[str, DatabaseThread] = {}
        self._reference_counts: Counter[str] = Counter()

    async def open(self, collection: str) -> StreamRange | None:
        """Follow a collection, and catch up with all that was committed before.

        Returns how far everything is delivered, None for a collection without a log. Raises what
        the database raises. One ``attach`` or ``release`` must follow, in the same turn.
        """
        shown = registry.get(collection)
        self._reference_counts[collection] += 1
        try:
            if collection not in self.topics:
                self.topics[collection] = CollectionTopic(shown)
            group = collection_group(collection)
            await self._hub.groups.acquire(
                group, JOIN_TIMEOUT_DURABLE if shown.durable else JOIN_TIMEOUT
            )
            if not shown.durable:
                return None
            feed = self.tailers.get(collection)
            if feed is None:
                feed = self.tailers[collection] = self._start_tailer(shown)
            await feed.wait_caught_up()
        except BaseException:
            self.release(collection)
            raise
        return feed.range

    def release(self, collection: str) -> None:
        """One subscription less; after the last one the collection is not followed any more."""
        self._reference_counts[collection] -= 1
        self._hub.groups.release(collection_group(collection))
        if self._reference_counts[collection] <= 0:
            del self._reference_counts[collection]
            audience = self.topics.pop(collection, None)
            if audience is not None:
                audience.stop()
            feed = self.tailers.pop(collection, None)
            if feed is not None:
                feed.stop()

    def _start_tailer(self, collection: Collection) -> LogTailer:
        using = collection.database
        thread = self.threads.get(using)
        if thread is None:
            thread = self.threads[using] = DatabaseThread(using)
        lost = partial(self._on_position_lost, collection.name)
        return LogTailer(collection.name, thread, using, self._dispatch, lost)

    def _on_position_lost(self, collection: str) -> None:
        """The stream began anew, or was trimmed faster than this process could read."""
        for connection in list(self._hub.connections.values()):
            if any(s.collection == collection for s in connection.subscriptions.values()):
                connection.close(CloseCode.POSITION_LOST)

    def close(self) -> None:
        """The hub rests."""
        for thread in self.threads.values():
            thread.close()
        self.threads.clear()

    def receive(self, change: Change) -> None:
        """A change came: it is told in its place, or, where no log is kept, as it comes."""
        feed = self.tailers.get(change.collection) if change.seq is not None else None
        if feed is not None:
            feed.receive(change)
        elif change.seq is None:
            self._dispatch(change)

    def _dispatch(self, change: Change) -> None:
        audience = self.topics.get(change.collection)
        if audience is not None:
            audience.dispatch(change)

    def get_listener(self, collection: str) -> Callable[[], None] | None:
        """For the broker, from any thread: what to call when this collection's bell rings."""
        return partial(self.notify, collection) if collection in self.tailers else None

    def notify(self, collection: str) -> None:
        """A collection's log has something new."""
        feed = self.tailers.get(collection)
        if feed is not None:
            feed.notify()
