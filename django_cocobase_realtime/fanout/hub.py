"""The hub: one an event loop, between the broker and this process's connections.

It holds one channel of the layer for all connections, joins a group while anybody here needs it
(groups map to collections and rooms, counted), and hands each event to the connections that
asked for it. Fan-out itself is synchronous: no database, no waiting, one encode a shape.
"""

from __future__ import annotations

import asyncio
import logging
import random
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from ..auth import chain
from ..collection import Collection
from ..conf import conf
from ..events import Bell, Broadcast, Change, Event, Kick, decode
from ..log.cursor import Position
from ..log.cursor import encode as encode_cursor
from ..log.follow import behind
from ..log.read import Extent
from ..log.trim import trim
from ..registry import registry
from ..rooms.rooms import Rooms
from ..wire import native
from ..wire.codes import CloseCode
from ..workers import DatabaseThread, run
from .broker import Inbox, broker
from .connection import Connection
from .feed import Feed
from .frames import ChangeFrames, broadcast_text
from .names import CONTROL, collection_group, room_group
from .snapshot import Wanted
from .start import start
from .subscriptions import Subscription, SubscriptionTable

logger = logging.getLogger(__name__)

TRIM = 60.0  # seconds between trims of the log, about
CURSORS = 30.0  # seconds after which a quiet subscription is told its cursor
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
        self._users: Counter[str] = Counter()
        self._feeds: dict[str, Feed] = {}
        self._threads: dict[str, DatabaseThread] = {}
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
            broker.attach(self._loop, self._hears)
            self._groups[CONTROL] += 1
            self._start(self._listen())
            self._start(self._sweep())
            self._start(self._audit())
            self._start(self._poll())
            self._start(self._trim())
            self._start(self._tell_cursors())

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
        for thread in self._threads.values():
            thread.close()
        self._threads.clear()
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

    async def prepare(self, collection: str) -> Extent | None:
        """Follow a collection, and catch up with all that was committed before.

        Returns how far everything is delivered, None for a collection without a log. Raises what
        the database raises. One ``attach`` or ``release`` must follow, in the same turn.
        """
        shown = registry.get(collection)
        self._users[collection] += 1
        try:
            if collection not in self._tables:
                self._tables[collection] = SubscriptionTable(shown.schema)
            await self._need(collection_group(collection))
            if not shown.durable:
                return None
            feed = self._feeds.get(collection)
            if feed is None:
                feed = self._feeds[collection] = self._follow(shown)
            await feed.caught_up()
        except BaseException:
            self.release(collection)
            raise
        return feed.extent

    def release(self, collection: str) -> None:
        """One subscription less; after the last one the collection is not followed any more."""
        self._users[collection] -= 1
        self._groups[collection_group(collection)] -= 1
        if self._users[collection] <= 0:
            del self._users[collection]
            self._tables.pop(collection, None)
            feed = self._feeds.pop(collection, None)
            if feed is not None:
                feed.stop()

    def _follow(self, collection: Collection) -> Feed:
        using = collection.database
        thread = self._threads.get(using)
        if thread is None:
            thread = self._threads[using] = DatabaseThread(using)
        lost = partial(self._lost, collection.name)
        return Feed(collection.name, thread, using, self._deliver_change, lost)

    def _lost(self, collection: str) -> None:
        """The stream began anew, or was trimmed faster than this process could read."""
        for connection in list(self.connections.values()):
            if any(s.collection == collection for s in connection.subscriptions.values()):
                connection.close(CloseCode.POSITION_LOST)

    def attach(
        self,
        subscription: Subscription,
        *,
        after: Position | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        """Start a prepared subscription; one of the same name is replaced, nothing lost between.

        Live at once, or once its snapshot is sent and all since ``after`` was replayed.
        """
        name, connection = subscription.collection, subscription.connection
        old = connection.subscriptions.get(subscription.name)
        connection.subscriptions[subscription.name] = subscription
        table, feed = self._tables[name], self._feeds.get(name)
        if after is None and wanted is None:
            table.add(subscription)
            subscription.seen = 0 if feed is None else feed.seq
        else:
            work = start(subscription, registry.get(name), table, feed, after, wanted)
            subscription.starting = self._loop.create_task(work)
        if old is not None:
            self._forget(old)

    def detach(self, subscription: Subscription) -> None:
        """End a subscription."""
        connection = subscription.connection
        if connection.subscriptions.get(subscription.name) is subscription:
            del connection.subscriptions[subscription.name]
        self._forget(subscription)

    def _forget(self, subscription: Subscription) -> None:
        if subscription.starting is not None:
            subscription.starting.cancel()
        self._tables[subscription.collection].discard(subscription)
        self.release(subscription.collection)

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
                feed = self._feeds.get(event.collection) if event.seq is not None else None
                if feed is not None:
                    feed.take(event)
                elif event.seq is None:
                    self._deliver_change(event)
            case Bell():
                self._ring(event.collection)
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
            for subscription in subscriptions:
                subscription.seen = change.seq or 0
            live = [each for each in subscriptions if each.held is None]
            for text in frames.texts(live):
                connection.writer.push(text)
            for subscription in subscriptions:
                if subscription.held is not None:
                    self._hold(subscription, frames.texts([subscription]))

    def _hold(self, subscription: Subscription, texts: list[str]) -> None:
        held = subscription.held
        if held is not None:
            held += texts
            if len(held) > conf.limits.queue_messages:
                subscription.connection.close(CloseCode.SLOW_CONSUMER)

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

    # the log

    def _hears(self, collection: str) -> Callable[[], None] | None:
        """For the broker, from any thread: what to call when this collection's bell rings."""
        return partial(self._ring, collection) if collection in self._feeds else None

    def _ring(self, collection: str) -> None:
        feed = self._feeds.get(collection)
        if feed is not None:
            feed.ring()

    async def _poll(self) -> None:
        """Look for what no bell told of: a layer loses messages, other processes have none."""
        while True:
            await asyncio.sleep(conf.log.poll)
            positions: dict[str, dict[str, Position]] = {}
            for name, feed in self._feeds.items():
                positions.setdefault(feed.using, {})[name] = feed.position
            for using, each in positions.items():
                try:
                    names = await self._threads[using].run(behind, using, each)
                except Exception as error:
                    logger.warning("The log cannot be read: %r", error)
                    continue
                for name in names:
                    self._ring(name)

    async def _trim(self) -> None:
        while True:
            await asyncio.sleep(TRIM * (0.5 + random.random()))  # noqa: S311 - to spread processes
            settings = conf.log
            names: dict[str, list[str]] = {}
            for name, feed in self._feeds.items():
                names.setdefault(feed.using, []).append(name)
            for using, collections in names.items():
                work = partial(
                    trim,
                    using,
                    max_age=settings.max_age,
                    max_events=settings.max_events,
                    collections=collections,
                )
                try:
                    await run(work)
                except Exception as error:
                    logger.warning("The log could not be trimmed: %r", error)

    async def _tell_cursors(self) -> None:
        """Now and then, tell quiet subscriptions how far they are, lest their cursor age out."""
        while True:
            await asyncio.sleep(CURSORS)
            for name, feed in list(self._feeds.items()):
                cursor = encode_cursor(name, feed.epoch, feed.seq)
                for subscription in self._tables.get(name, ()):
                    if subscription.seen < feed.seq:
                        subscription.seen = feed.seq
                        frame = native.cursor(subscription.name, cursor)
                        subscription.connection.writer.push(native.encode(frame))

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
