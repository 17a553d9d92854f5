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
from ..log.reader import Extent
from ..pubsub.groups import PATIENCE, QUICK
from ..pubsub.names import collection_group
from ..utils.concurrency import DatabaseThread
from ..wire.codes import CloseCode
from .tailer import Feed
from .topic import Audience

if TYPE_CHECKING:
    from ..hub.hub import Hub


class Following:
    """One a hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.audiences: dict[str, Audience] = {}
        self.feeds: dict[str, Feed] = {}
        self.threads: dict[str, DatabaseThread] = {}
        self._users: Counter[str] = Counter()

    async def prepare(self, collection: str) -> Extent | None:
        """Follow a collection, and catch up with all that was committed before.

        Returns how far everything is delivered, None for a collection without a log. Raises what
        the database raises. One ``attach`` or ``release`` must follow, in the same turn.
        """
        shown = registry.get(collection)
        self._users[collection] += 1
        try:
            if collection not in self.audiences:
                self.audiences[collection] = Audience(shown)
            group = collection_group(collection)
            await self._hub.groups.need(group, QUICK if shown.durable else PATIENCE)
            if not shown.durable:
                return None
            feed = self.feeds.get(collection)
            if feed is None:
                feed = self.feeds[collection] = self._follow(shown)
            await feed.caught_up()
        except BaseException:
            self.release(collection)
            raise
        return feed.extent

    def release(self, collection: str) -> None:
        """One subscription less; after the last one the collection is not followed any more."""
        self._users[collection] -= 1
        self._hub.groups.release(collection_group(collection))
        if self._users[collection] <= 0:
            del self._users[collection]
            audience = self.audiences.pop(collection, None)
            if audience is not None:
                audience.stop()
            feed = self.feeds.pop(collection, None)
            if feed is not None:
                feed.stop()

    def _follow(self, collection: Collection) -> Feed:
        using = collection.database
        thread = self.threads.get(using)
        if thread is None:
            thread = self.threads[using] = DatabaseThread(using)
        lost = partial(self._lost, collection.name)
        return Feed(collection.name, thread, using, self._tell, lost)

    def _lost(self, collection: str) -> None:
        """The stream began anew, or was trimmed faster than this process could read."""
        for connection in list(self._hub.connections.values()):
            if any(s.collection == collection for s in connection.subscriptions.values()):
                connection.close(CloseCode.POSITION_LOST)

    def close(self) -> None:
        """The hub rests."""
        for thread in self.threads.values():
            thread.close()
        self.threads.clear()

    def take(self, change: Change) -> None:
        """A change came: it is told in its place, or, where no log is kept, as it comes."""
        feed = self.feeds.get(change.collection) if change.seq is not None else None
        if feed is not None:
            feed.take(change)
        elif change.seq is None:
            self._tell(change)

    def _tell(self, change: Change) -> None:
        audience = self.audiences.get(change.collection)
        if audience is not None:
            audience.tell(change)

    def hears(self, collection: str) -> Callable[[], None] | None:
        """For the broker, from any thread: what to call when this collection's bell rings."""
        return partial(self.ring, collection) if collection in self.feeds else None

    def ring(self, collection: str) -> None:
        """A collection's log has something new."""
        feed = self.feeds.get(collection)
        if feed is not None:
            feed.ring()
