"""The hub: one an event loop, between the broker and this process's connections.

It holds one channel of the layer for all connections, joins a group while anybody here needs it
(groups map to collections and rooms, counted), and hands each event to the connections that
asked for it. Fan-out itself is synchronous: no database, no waiting, one encode a shape.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import msgspec

from ..collection import Collection
from ..events import (
    Bell,
    Broadcast,
    Change,
    Event,
    Kick,
    Presence,
    Push,
    RightsChanged,
    decode,
)
from ..log.read import Extent
from ..registry import registry
from ..wire.codes import CloseCode
from ..workers import DatabaseThread
from . import tending, upkeep
from .audience import Audience
from .batches import Batches
from .broker import broker
from .connection import Connection
from .feed import Feed
from .membership import PATIENCE, Membership
from .names import CONTROL, collection_group
from .rights import freeze, thaw
from .rooms import Rooms
from .speech import push
from .start import start
from .subscriptions import Begin, Subscription

logger = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]
QUICK = 0.5  # seconds to wait for a group whose events the log brings anyway


class Hub:
    """Routes events to connections. Belongs to one event loop; get it with ``Hub.current``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.connections: dict[str, Connection] = {}
        self.rooms = Rooms(self)
        self.audiences: dict[str, Audience] = {}
        self._users: Counter[str] = Counter()
        self.batches = Batches(loop)
        self.feeds: dict[str, Feed] = {}
        self.threads: dict[str, DatabaseThread] = {}
        self.groups = Membership(self._take)
        self._tasks: list[asyncio.Task[None]] = []
        self._tending = False
        self._thawing: dict[Connection, asyncio.Task[None]] = {}

    @classmethod
    def current(cls) -> Hub:
        """The running loop's hub."""
        loop = asyncio.get_running_loop()
        hub = _hubs.get(loop)
        if hub is None:
            hub = _hubs[loop] = cls(loop)
        return hub

    # connections

    async def open(self, connection: Connection) -> None:
        """Take a connection in; the first one makes the hub listen."""
        self.connections[connection.id] = connection
        if not self._tasks:
            broker.attach(self.loop, self._hears)
            self._start(self.groups.listen)
            self._start(self.groups.sweep)
            for work in (upkeep.poll, upkeep.trim, upkeep.tell_cursors, upkeep.audit):
                self._start(partial(work, self))
            await self.groups.need(CONTROL, QUICK)

    async def close(self, connection: Connection, *, lost: bool = True) -> None:
        """Let a connection go with all it had; after the last one the hub rests.

        Again for one that is gone: a request that was under way may have left something. ``lost``
        False: it is not to come back.
        """
        self.connections.pop(connection.id, None)
        for subscription in list(connection.subscriptions.values()):
            self.detach(subscription)
        for room in list(connection.rooms):
            self.rooms.drop(connection, room, lost=lost)
        if not self.connections and (self._tasks or self.threads):
            # a task of its own: whoever closes last may be cancelled, as it is gone already
            resting = self.loop.create_task(self._rest(self._lie_down()))
            _resting.add(resting)
            resting.add_done_callback(_resting.discard)
            await asyncio.shield(resting)

    def _start(self, work: Work) -> None:
        self._tasks.append(self.loop.create_task(upkeep.keep_on(work)))

    def _lie_down(self) -> list[asyncio.Task[None]]:
        """At once: whoever comes now gets another hub. Returns the tasks that are to end."""
        tasks, self._tasks = self._tasks, []
        broker.detach(self.loop, self._hears)
        for thread in self.threads.values():
            thread.close()
        self.threads.clear()
        if _hubs.get(self.loop) is self:
            del _hubs[self.loop]
        return tasks

    async def _rest(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._tending:
            self._tending = False
            await tending.say_farewell(self.rooms)
            self.rooms.close()
        await self.groups.leave_all()

    # subscriptions and rooms

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
            await self.groups.need(group, QUICK if shown.durable else PATIENCE)
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
        self.groups.release(collection_group(collection))
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
        return Feed(collection.name, thread, using, self._deliver_change, lost)

    def _lost(self, collection: str) -> None:
        """The stream began anew, or was trimmed faster than this process could read."""
        for connection in list(self.connections.values()):
            if any(s.collection == collection for s in connection.subscriptions.values()):
                connection.close(CloseCode.POSITION_LOST)

    def attach(self, subscription: Subscription, begin: Begin | None = None) -> None:
        """Start a prepared subscription; one of the same name is replaced, nothing lost between.

        Live at once, or once its snapshot is sent and all since ``begin.after`` was replayed.
        """
        name, connection = subscription.collection, subscription.connection
        old = connection.subscriptions.get(subscription.name)
        connection.subscriptions[subscription.name] = subscription
        if subscription.rights != connection.rights or connection in self._thawing:
            # what it may see may have changed while it was being granted: it is asked again
            subscription.begin = begin
            self.reconsider([connection])
        elif begin is None:
            feed = self.feeds.get(name)
            self.audiences[name].table.add(subscription)
            subscription.seen = 0 if feed is None else feed.seq
        else:
            self.start(subscription, begin)
        if old is not None:
            self._forget(old)

    def start(self, subscription: Subscription, begin: Begin) -> None:
        """Bring a subscription up to date by a task of its own, then live."""
        name = subscription.collection
        subscription.begin = begin
        work = start(subscription, self.audiences[name], self.feeds.get(name), begin)
        subscription.starting = self.loop.create_task(work)

    def detach(self, subscription: Subscription) -> None:
        """End a subscription."""
        connection = subscription.connection
        if connection.subscriptions.get(subscription.name) is subscription:
            del connection.subscriptions[subscription.name]
        self._forget(subscription)

    def _forget(self, subscription: Subscription) -> None:
        if subscription.starting is not None:
            subscription.starting.cancel()
        self.audiences[subscription.collection].table.discard(subscription)
        self.release(subscription.collection)

    def tend_rooms(self) -> None:
        """Somebody enters a room: look after rooms from now on."""
        if not self._tending:
            self._tending = True
            self._start(partial(tending.tend, self.rooms))

    def publish(self, event: Event) -> None:
        """Tell the other processes."""
        broker.publish(event)

    # events

    def _take(self, payload: bytes) -> None:
        try:
            event = decode(payload)
        except msgspec.DecodeError as error:
            logger.warning("An event of another version was left out: %s", error)
            return
        try:
            self.deliver(event)
        except Exception:
            logger.exception("An event could not be delivered.")

    def deliver(self, event: Event) -> None:
        """Hand an event to everyone here who must see it."""
        match event:
            case Change():
                feed = self.feeds.get(event.collection) if event.seq is not None else None
                if feed is not None:
                    feed.take(event)
                elif event.seq is None:
                    self._deliver_change(event)
            case Bell():
                self.ring(event.collection)
            case Broadcast() if not event.is_for_all:
                self.rooms.deliver(event)
            case Presence():
                self.rooms.hear(event)
            case Broadcast() | Push():
                push(self, event)
            case Kick():
                self._kick(event)
            case RightsChanged():
                self.reconsider(c for c in self.connections.values() if event.concerns(c.identity))

    def reconsider(self, connections: Iterable[Connection]) -> None:
        """Show these connections nothing more until their rights are known again."""
        for connection in list(connections):
            connection.rights += 1
            if connection in self._thawing:
                continue  # it asks again
            freeze(self, connection)
            self._thawing[connection] = self.loop.create_task(self._thaw(connection))

    async def _thaw(self, connection: Connection) -> None:
        try:
            await thaw(self, connection)
        except Exception:
            logger.exception("Rights could not be looked at.")
            connection.close(CloseCode.INTERNAL_ERROR)
        finally:
            # in the very turn of the last look: what changes from now on is asked for again
            del self._thawing[connection]

    async def settled(self, connection: Connection) -> None:
        """Wait until the connection's rights are known."""
        while (task := self._thawing.get(connection)) is not None:
            await asyncio.wait({task})

    def _deliver_change(self, change: Change) -> None:
        audience = self.audiences.get(change.collection)
        if audience is not None:
            audience.tell(change)

    def _kick(self, event: Kick) -> None:
        for connection in list(self.connections.values()):
            identity = connection.identity
            if identity is None:
                continue
            by_user = event.user is not None and identity.user_key == event.user
            by_credential = event.credential is not None and identity.credential == event.credential
            if (by_user or by_credential) and event.project in (None, identity.project):
                connection.close(CloseCode(event.code))

    def _hears(self, collection: str) -> Callable[[], None] | None:
        """For the broker, from any thread: what to call when this collection's bell rings."""
        return partial(self.ring, collection) if collection in self.feeds else None

    def ring(self, collection: str) -> None:
        """A collection's log has something new."""
        feed = self.feeds.get(collection)
        if feed is not None:
            feed.ring()


_resting: set[asyncio.Task[None]] = set()
_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = weakref.WeakKeyDictionary()
