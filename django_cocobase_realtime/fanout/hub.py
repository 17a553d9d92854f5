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
from collections.abc import Coroutine
from typing import Any

import msgspec

from ..auth import chain
from ..conf import conf
from ..events import Broadcast, Change, Event, Kick, decode
from ..registry import registry
from ..rooms.rooms import Rooms
from ..wire.codes import CloseCode
from ..workers import run
from .broker import Inbox, broker
from .connection import Connection
from .frames import ChangeFrames, broadcast_text
from .names import CONTROL, collection_group, room_group
from .subscriptions import Subscription, SubscriptionTable

logger = logging.getLogger(__name__)

SWEEP = 1.0  # seconds between looks at groups to leave or to join again
RENEW = 30.0  # seconds after which memberships are renewed: a flushed Redis forgets them
LISTEN_TIMEOUT = 5.0  # seconds a first subscription waits for the layer
RETRY = (0.1, 2.0)  # seconds, first and longest wait before listening to the layer again


class Hub:
    """Routes events to connections. Belongs to one event loop; get it with ``Hub.current``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.connections: dict[str, Connection] = {}
        self.rooms = Rooms()
        self._tables: dict[str, SubscriptionTable] = {}
        self._groups: Counter[str] = Counter()
        self._joined: dict[str, float] = {}
        self._inbox: Inbox | None = None
        self._listening = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

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
            broker.attach(self._loop)
            self._groups[CONTROL] += 1
            self._start(self._listen())
            self._start(self._sweep())
            self._start(self._audit())

    async def close(self, connection: Connection) -> None:
        """Let a connection go with all it had; after the last one the hub rests."""
        if self.connections.pop(connection.id, None) is None:
            return
        for subscription in list(connection.subscriptions.values()):
            self.detach(subscription)
        for room in list(connection.rooms):
            self.leave(connection, room)
        if not self.connections:
            await self._rest()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._loop.create_task(work))

    async def _rest(self) -> None:
        tasks, self._tasks = self._tasks, []
        broker.detach(self._loop)
        for task in tasks:
            task.cancel()
        inbox, joined = self._inbox, list(self._joined)
        self._inbox = None
        self._joined.clear()
        self._groups.clear()
        self._listening.clear()
        if _hubs.get(self._loop) is self:
            del _hubs[self._loop]
        await asyncio.gather(*tasks, return_exceptions=True)
        if inbox is not None:
            try:
                for group in joined:
                    await inbox.leave(group)
            except Exception as error:
                logger.debug("Groups were left to expire: %r", error)

    # subscriptions and rooms

    async def attach(self, subscription: Subscription) -> None:
        """Start a subscription; one of the same name is replaced, with no event between lost."""
        await self._need(collection_group(subscription.collection))
        connection = subscription.connection
        old = connection.subscriptions.get(subscription.name)
        connection.subscriptions[subscription.name] = subscription
        table = self._tables.get(subscription.collection)
        if table is None:
            schema = registry.get(subscription.collection).schema
            table = self._tables[subscription.collection] = SubscriptionTable(schema)
        table.add(subscription)
        if old is not None:
            self._forget(old)

    def detach(self, subscription: Subscription) -> None:
        """End a subscription."""
        connection = subscription.connection
        if connection.subscriptions.get(subscription.name) is subscription:
            del connection.subscriptions[subscription.name]
        self._forget(subscription)

    def _forget(self, subscription: Subscription) -> None:
        table = self._tables.get(subscription.collection)
        if table is not None:
            table.discard(subscription)
            if not len(table):
                del self._tables[subscription.collection]
        self._groups[collection_group(subscription.collection)] -= 1

    async def enter(self, connection: Connection, project: str, room: str) -> None:
        """Put a connection into a room."""
        await self._need(room_group(project, room))
        connection.rooms.add(room)
        self.rooms.enter((project, room), connection)

    def leave(self, connection: Connection, room: str) -> None:
        """Take a connection out of a room."""
        if connection.identity is None or room not in connection.rooms:
            return
        project = connection.identity.project
        connection.rooms.discard(room)
        self.rooms.leave((project, room), connection)
        self._groups[room_group(project, room)] -= 1

    # groups

    async def _need(self, group: str) -> None:
        self._groups[group] += 1
        if group not in self._joined:
            await self._join(group)

    async def _join(self, group: str) -> None:
        # where the layer fails, the sweep joins as soon as it can
        try:
            async with asyncio.timeout(LISTEN_TIMEOUT):
                await self._listening.wait()
            if self._inbox is None:
                return
            await self._inbox.join(group)
        except Exception as error:
            logger.warning("The channel layer refused a group, trying again: %r", error)
        else:
            self._joined[group] = self._loop.time()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            inbox, now = self._inbox, self._loop.time()
            if inbox is None:
                continue
            for group, needed in list(self._groups.items()):
                if needed > 0:
                    if now - self._joined.get(group, -RENEW) >= RENEW:
                        await self._join(group)
                    continue
                del self._groups[group]
                if self._joined.pop(group, None) is not None:
                    try:
                        await inbox.leave(group)
                    except Exception as error:
                        logger.debug("A group was left to expire: %r", error)

    # listening

    async def _listen(self) -> None:
        wait = RETRY[0]
        while True:
            try:
                if self._inbox is None:
                    self._inbox = await Inbox.open()
                    self._listening.set()
                    if self._inbox is None:
                        logger.error("No channel layer: nothing will be delivered.")
                        return
                for group, needed in list(self._groups.items()):
                    if needed > 0 and group not in self._joined:
                        await self._join(group)
                while True:
                    payloads = await self._inbox.receive()
                    wait = RETRY[0]
                    for payload in payloads:
                        self._take(payload)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # groups may be gone with the layer's server: join them all again
                self._joined.clear()
                logger.info("The channel layer is silent, listening again: %r", error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, RETRY[1])

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

    # fan-out

    def deliver(self, event: Event) -> None:
        """Hand an event to everyone here who must see it."""
        match event:
            case Change():
                self._deliver_change(event)
            case Broadcast():
                self._deliver_broadcast(event)
            case Kick():
                self._kick(event)

    def _deliver_change(self, change: Change) -> None:
        table = self._tables.get(change.collection)
        if table is None:
            return
        matched: dict[Connection, list[Subscription]] = {}
        for subscription in table.matching(change):
            matched.setdefault(subscription.connection, []).append(subscription)
        frames = ChangeFrames(change, conf.limits.event_bytes)
        for connection, subscriptions in matched.items():
            for text in frames.texts(subscriptions):
                connection.writer.push(text)

    def _deliver_broadcast(self, event: Broadcast) -> None:
        text = broadcast_text(event)
        for connection in list(self.rooms.connections((event.project, event.room))):
            if event.echo or connection.id != event.connection:
                connection.writer.push(text)

    def _kick(self, event: Kick) -> None:
        for connection in list(self.connections.values()):
            identity = connection.identity
            if identity is None:
                continue
            by_user = event.user is not None and identity.user_key == event.user
            by_credential = event.credential is not None and identity.credential == event.credential
            if (by_user or by_credential) and event.project in (None, identity.project):
                connection.close(CloseCode(event.code))

    # credentials

    async def _audit(self) -> None:
        """Close what no longer holds: the net below the signals, which other processes miss."""
        while True:
            await asyncio.sleep(conf.revocation_poll)
            holders = [c for c in self.connections.values() if c.identity is not None]
            identities = {c.identity.credential: c.identity for c in holders if c.identity}
            if not identities:
                continue
            try:
                dead = await run(chain.dead, list(identities.values()))
            except Exception as error:
                logger.warning("Credentials could not be checked: %r", error)
                continue
            for connection in holders:
                identity = connection.identity
                if identity is not None and identity.credential in dead:
                    connection.close(CloseCode.BAD_CREDENTIAL)


_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = weakref.WeakKeyDictionary()
