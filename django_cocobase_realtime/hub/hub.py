"""The hub: one an event loop, between the broker and this process's connections.

It holds one channel of the layer for all connections, joins a group while anybody here needs it
(groups map to collections and rooms, counted), and hands each event to the connections that
asked for it. Fan-out itself is synchronous: no database, no waiting, one encode a shape.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import msgspec

from ..delivery.catchup import start
from ..delivery.table import Begin, Subscription
from ..delivery.topics import Following
from ..events import Bell, Broadcast, Change, Event, Kick, Presence, Push, RightsChanged, decode
from ..pubsub.broker import broker
from ..pubsub.groups import QUICK, Membership
from ..pubsub.names import CONTROL
from ..rooms import tending
from ..rooms.broadcasts import push
from ..rooms.room_manager import Rooms
from ..transport.batches import Batches
from ..transport.connection import Connection
from ..utils.tasks import finish
from ..wire.codes import CloseCode
from . import maintenance as upkeep
from .reauthorization import freeze, thaw

logger = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]


class Hub:
    """Routes events to connections. Belongs to one event loop; get it with ``Hub.current``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.connections: dict[str, Connection] = {}
        self.rooms = Rooms(self)
        self.following = Following(self)
        self.batches = Batches(loop)
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
            broker.attach(self.loop, self.following.hears)
            self._start(self.groups.listen)
            self._start(self.groups.sweep)
            self._start(upkeep.trim)
            for work in (upkeep.poll, upkeep.tell_cursors, upkeep.audit):
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
        if not self.connections and (self._tasks or self.following.threads):
            # whoever closes last may be cancelled, as it is gone already
            await finish(self._rest(self._lie_down()))

    def _start(self, work: Work) -> None:
        self._tasks.append(self.loop.create_task(upkeep.keep_on(work)))

    def _lie_down(self) -> list[asyncio.Task[None]]:
        """At once: whoever comes now gets another hub. Returns the tasks that are to end."""
        tasks, self._tasks = self._tasks, []
        broker.detach(self.loop, self.following.hears)
        self.following.close()
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

    # subscriptions

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
            feed = self.following.feeds.get(name)
            self.following.audiences[name].table.add(subscription)
            subscription.seen = 0 if feed is None else feed.seq
        else:
            self.start(subscription, begin)
        if old is not None:
            self._forget(old)

    def start(self, subscription: Subscription, begin: Begin) -> None:
        """Bring a subscription up to date by a task of its own, then live."""
        name = subscription.collection
        subscription.begin = begin
        work = start(
            subscription, self.following.audiences[name], self.following.feeds.get(name), begin
        )
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
        self.following.audiences[subscription.collection].table.discard(subscription)
        self.following.release(subscription.collection)

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
                self.following.take(event)
            case Bell():
                self.following.ring(event.collection)
            case Broadcast() if not event.is_for_all:
                self.rooms.deliver(event)
            case Presence():
                self.rooms.members.hear(event)
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

    def _kick(self, event: Kick) -> None:
        for connection in list(self.connections.values()):
            identity = connection.identity
            if identity is None:
                continue
            by_user = event.user is not None and identity.user_key == event.user
            by_credential = event.credential is not None and identity.credential == event.credential
            if (by_user or by_credential) and event.project in (None, identity.project):
                connection.close(CloseCode(event.code))


_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = weakref.WeakKeyDictionary()
