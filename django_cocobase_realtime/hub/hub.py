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

from ..delivery.catchup import catch_up
from ..delivery.table import CatchUpPlan, Subscription
from ..delivery.topics import TopicManager
from ..events import (
    Broadcast,
    Change,
    DirectMessage,
    DisconnectRequested,
    Event,
    LogAppended,
    PermissionsChanged,
    PresenceChange,
    decode,
)
from ..pubsub.broker import broker
from ..pubsub.groups import JOIN_TIMEOUT_DURABLE, GroupMemberships
from ..pubsub.names import CONTROL_GROUP
from ..rooms import tending
from ..rooms.broadcasts import deliver_direct
from ..rooms.room_manager import RoomManager
from ..transport.batches import FrameBatcher
from ..transport.connection import Connection
from ..utils.concurrency import run_shielded
from ..wire.codes import CloseCode
from . import maintenance as upkeep
from .reauthorization import reauthorize, suspend

logger = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]


class Hub:
    """Routes events to connections. Belongs to one event loop; get it with ``Hub.current``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.connections: dict[str, Connection] = {}
        self.rooms = RoomManager(self)
        self.topics = TopicManager(self)
        self.batcher = FrameBatcher(loop)
        self.groups = GroupMemberships(self._on_payload)
        self._tasks: list[asyncio.Task[None]] = []
        self._presence_running = False
        self._reauthorizing: dict[Connection, asyncio.Task[None]] = {}

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
            broker.attach(self.loop, self.topics.get_listener)
            self._start(self.groups.listen)
            self._start(self.groups.sweep)
            self._start(upkeep.trim_logs)
            for work in (
                upkeep.poll_log,
                upkeep.send_cursor_heartbeats,
                upkeep.revalidate_credentials,
            ):
                self._start(partial(work, self))
            await self.groups.acquire(CONTROL_GROUP, JOIN_TIMEOUT_DURABLE)

    async def close(self, connection: Connection, *, lost: bool = True) -> None:
        """Let a connection go with all it had; after the last one the hub rests.

        Again for one that is gone: a request that was under way may have left something. ``lost``
        False: it is not to come back.
        """
        self.connections.pop(connection.id, None)
        for subscription in list(connection.subscriptions.values()):
            self.detach(subscription)
        for room in list(connection.rooms):
            self.rooms.remove_local(connection, room, lost=lost)
        if not self.connections and (self._tasks or self.topics.threads):
            # whoever closes last may be cancelled, as it is gone already
            await run_shielded(self._shutdown(self._detach()))

    def _start(self, work: Work) -> None:
        self._tasks.append(self.loop.create_task(upkeep.run_forever(work)))

    def _detach(self) -> list[asyncio.Task[None]]:
        """At once: whoever comes now gets another hub. Returns the tasks that are to end."""
        tasks, self._tasks = self._tasks, []
        broker.detach(self.loop, self.topics.get_listener)
        self.topics.close()
        if _hubs.get(self.loop) is self:
            del _hubs[self.loop]
        return tasks

    async def _shutdown(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._presence_running:
            self._presence_running = False
            await tending.flush_departures(self.rooms)
            self.rooms.close()
        await self.groups.leave_all()

    # subscriptions

    def attach(self, subscription: Subscription, begin: CatchUpPlan | None = None) -> None:
        """Start a prepared subscription; one of the same name is replaced, nothing lost between.

        Live at once, or once its snapshot is sent and all since ``begin.after`` was replayed.
        """
        name, connection = subscription.collection, subscription.connection
        old = connection.subscriptions.get(subscription.name)
        connection.subscriptions[subscription.name] = subscription
        if (
            subscription.permissions_version != connection.permissions_version
            or connection in self._reauthorizing
        ):
            # what it may see may have changed while it was being granted: it is asked again
            subscription.plan = begin
            self.request_reauthorization([connection])
        elif begin is None:
            feed = self.topics.tailers.get(name)
            self.topics.topics[name].table.add(subscription)
            subscription.last_seq = 0 if feed is None else feed.seq
        else:
            self.start(subscription, begin)
        if old is not None:
            self._forget(old)

    def start(self, subscription: Subscription, begin: CatchUpPlan) -> None:
        """Bring a subscription up to date by a task of its own, then live."""
        name = subscription.collection
        subscription.plan = begin
        work = catch_up(
            subscription, self.topics.topics[name], self.topics.tailers.get(name), begin
        )
        subscription.catchup_task = self.loop.create_task(work)

    def detach(self, subscription: Subscription) -> None:
        """End a subscription."""
        connection = subscription.connection
        if connection.subscriptions.get(subscription.name) is subscription:
            del connection.subscriptions[subscription.name]
        self._forget(subscription)

    def _forget(self, subscription: Subscription) -> None:
        if subscription.catchup_task is not None:
            subscription.catchup_task.cancel()
        self.topics.topics[subscription.collection].table.discard(subscription)
        self.topics.release(subscription.collection)

    def ensure_presence_running(self) -> None:
        """Somebody enters a room: look after rooms from now on."""
        if not self._presence_running:
            self._presence_running = True
            self._start(partial(tending.run, self.rooms))

    def publish(self, event: Event) -> None:
        """Tell the other processes."""
        broker.publish(event)

    # events

    def _on_payload(self, payload: bytes) -> None:
        try:
            event = decode(payload)
        except msgspec.DecodeError as error:
            logger.warning("An event of another version was left out: %s", error)
            return
        try:
            self.dispatch(event)
        except Exception:
            logger.exception("An event could not be delivered.")

    def dispatch(self, event: Event) -> None:
        """Hand an event to everyone here who must see it."""
        match event:
            case Change():
                self.topics.receive(event)
            case LogAppended():
                self.topics.notify(event.collection)
            case Broadcast() if not event.is_for_all:
                self.rooms.deliver(event)
            case PresenceChange():
                self.rooms.members.receive(event)
            case Broadcast() | DirectMessage():
                deliver_direct(self, event)
            case DisconnectRequested():
                self._disconnect(event)
            case PermissionsChanged():
                self.request_reauthorization(
                    c for c in self.connections.values() if event.concerns(c.identity)
                )

    def request_reauthorization(self, connections: Iterable[Connection]) -> None:
        """Show these connections nothing more until their rights are known again."""
        for connection in list(connections):
            connection.permissions_version += 1
            if connection in self._reauthorizing:
                continue  # it asks again
            suspend(self, connection)
            self._reauthorizing[connection] = self.loop.create_task(self._reauthorize(connection))

    async def _reauthorize(self, connection: Connection) -> None:
        try:
            await reauthorize(self, connection)
        except Exception:
            logger.exception("Rights could not be looked at.")
            connection.close(CloseCode.INTERNAL_ERROR)
        finally:
            # in the very turn of the last look: what changes from now on is asked for again
            del self._reauthorizing[connection]

    async def wait_authorized(self, connection: Connection) -> None:
        """Wait until the connection's rights are known."""
        while (task := self._reauthorizing.get(connection)) is not None:
            await asyncio.wait({task})

    def _disconnect(self, event: DisconnectRequested) -> None:
        for connection in list(self.connections.values()):
            identity = connection.identity
            if identity is None:
                continue
            by_user = event.user is not None and identity.user_key == event.user
            by_credential = event.credential is not None and identity.credential == event.credential
            if (by_user or by_credential) and event.project in (None, identity.project):
                connection.close(CloseCode(event.code))


_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = weakref.WeakKeyDictionary()
