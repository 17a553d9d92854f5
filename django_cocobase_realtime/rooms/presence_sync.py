"""Synchronization of the rooms of this process with the presence backend.

The process reports to the backend which of its connections enter and leave rooms, and renews its
lease; if the lease has ended, it enters all connections again. It announces the changes that it
has made to other processes. If an announcement is lost, a process notices it by the versions of
rooms, and reads the room again. All calls of the backend are made in one thread, in order.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace as replace_entry
from typing import ParamSpec, TypeVar

from msgspec.structs import replace

from ..conf import conf
from ..events import Event, PresenceChange
from ..models import PresenceRoom
from ..presence.base import RoomConnection, RoomKey, get_backend
from ..transport.connection import Connection
from ..utils.concurrency import DatabaseThread, run_in_threadpool, set_owner
from ..utils.fair_queue import SERVER
from ..utils.transactions import database_for
from . import history
from .broadcasts import backfill
from .local_room import ApplyResult, LocalRoom, RoomMembership
from .room_frames import RoomFrames

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# seconds between two rounds of `PresenceSync.run`
TICK_INTERVAL = 1.0
# seconds between two calls of the backend that remove expired members
EXPIRE_INTERVAL = 2.0
# seconds by which the lease outlasts grace periods when a hub shuts down
LEASE_MARGIN = 1.0
# seconds that a hub may take to report departures when it shuts down
FLUSH_TIMEOUT = 2.0


class PresenceSync:
    """Keeps the rooms of one hub and the presence backend up to date with each other."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rooms: Mapping[RoomKey, LocalRoom],
        publish: Callable[[Event], None],
    ) -> None:
        # name of this process in the backend
        self.server = uuid.uuid4().hex
        # lost connections that the backend must still be informed of
        self.pending_disconnects: list[RoomConnection] = []
        # connections that have left, of which the backend must still be informed
        self.pending_leaves: list[RoomConnection] = []
        self._loop = loop
        # the rooms that connections of this process have joined; `RoomManager` maintains them
        self._rooms = rooms
        # publishes an event to the other processes
        self._publish = publish
        # the thread in which the backend is called; None before the first call
        self._thread: DatabaseThread | None = None
        # set to begin the next round of `run` early
        self._wake = asyncio.Event()
        # time at which expired members were last removed, by the event loop's clock
        self._expired_at = float("-inf")
        # tasks that read rooms again
        self._refreshing: dict[RoomKey, asyncio.Task[None]] = {}
        # time at which the lease must be renewed, by the event loop's clock
        self._renew_at = float("-inf")
        # time at which the last grace period of a lost connection ends, by the event loop's clock
        self._grace_until = float("-inf")
        # whether a renewal failed, so that it is unknown whether the lease has ended
        self._lease_uncertain = False
        # memberships to enter again after the lease has ended, as keys of a dictionary
        self._to_reenter: dict[RoomMembership, None] = {}

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the backend in its thread. Calls are made one after the other."""
        if self._thread is None:
            self._thread = DatabaseThread(database_for(PresenceRoom))
        return await self._thread.run(function, *args, **kwargs)

    @property
    def has_thread(self) -> bool:
        """Whether there is a thread that `close` must end."""
        return self._thread is not None

    # the background task

    async def run(self) -> None:
        """Regularly report departures, renew the lease, expire members, and find lost changes.

        This is started when the first connection joins a room. When the last one has left and all
        grace periods have ended, the backend is no longer called.
        """
        used_at = self._loop.time()
        while True:
            try:
                async with asyncio.timeout(TICK_INTERVAL):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            now = self._loop.time()
            if self._rooms or self.pending_disconnects or self.pending_leaves:
                used_at = now
            elif now - used_at > conf.presence.lease + conf.presence.grace:
                continue  # all lost connections have expired
            try:
                await self.flush_departures()
                await self.renew_if_due()
                if await self.expire(EXPIRE_INTERVAL):
                    await self.refresh_stale()
            except Exception as error:
                logger.warning("The presence backend failed; it will be tried again: %r", error)

    def wake(self) -> None:
        """Begin the next round of `run` now."""
        self._wake.set()

    async def stop(self) -> None:
        """Report departures, for up to `FLUSH_TIMEOUT` seconds.

        Connections that are not reported leave when the lease ends. The lease is extended if it
        could end before the grace period of a connection, whose client may reconnect to another
        server.
        """
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await self.flush_departures()
                remaining = self._grace_until - self._loop.time()
                if remaining > 0:
                    seconds = max(conf.presence.lease, remaining + LEASE_MARGIN)
                    await self.call(get_backend().renew_lease, self.server, seconds)
        except Exception as error:
            logger.warning("Departures could not be reported to the presence backend: %r", error)
        self._renew_at = float("-inf")  # the next join renews the lease first

    def close(self) -> None:
        """End the thread, after the calls that were already made."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None

    # the lease

    async def renew_if_due(self) -> None:
        """Renew the lease if it is time. If it had ended, enter all memberships again."""
        if self._loop.time() < self._renew_at:
            return
        lease = conf.presence.lease
        try:
            was_held = await self.call(get_backend().renew_lease, self.server, lease)
        except BaseException:
            self._lease_uncertain = True
            raise
        self._renew_at = self._loop.time() + lease / 3
        if self._lease_uncertain or not was_held:
            self._lease_uncertain = False
            memberships = (m for room in self._rooms.values() for m in room.memberships.values())
            self._to_reenter = dict.fromkeys(m for m in memberships if m.entry is not None)
        try:
            while self._to_reenter:
                membership = next(iter(self._to_reenter))
                await self._reenter(membership)
                self._to_reenter.pop(membership, None)
        except BaseException:
            self._renew_at = float("-inf")  # the remaining ones are entered in the next round
            raise

    async def _reenter(self, membership: RoomMembership) -> None:
        entry = membership.entry
        if entry is None or not self._is_current(membership):
            return
        member = self._rooms[membership.key].members.get(entry.member)
        if member is not None:
            entry = replace_entry(entry, state=member.state)
        result = await self.call(get_backend().enter, entry)
        if result is not None:
            self.announce([result.change])
        if not self._is_current(membership):  # it left during the call
            self.pending_leaves.append((entry.key, entry.connection))

    def _is_current(self, membership: RoomMembership) -> bool:
        room = self._rooms.get(membership.key)
        return room is not None and room.memberships.get(membership.connection.id) is membership

    # departures

    async def leave(self, departed: RoomConnection, acting: Connection | None = None) -> None:
        """Report that a connection has left. After an exception, it is reported again later.

        ``acting`` is the connection that caused this, which is not sent the change.
        """
        try:
            change = await self.call(get_backend().leave, *departed)
        except BaseException:
            self.pending_leaves.append(departed)
            raise
        self.announce([change], acting)

    async def flush_departures(self) -> None:
        """Report the lost connections and those that have left.

        Raises the exceptions of the backend; connections that were not reported are kept.
        """
        lost, self.pending_disconnects = self.pending_disconnects, []
        if lost:
            try:
                await self.call(get_backend().mark_disconnected, lost, conf.presence.grace)
            except BaseException:
                self.pending_disconnects[:0] = lost
                raise
            self._grace_until = self._loop.time() + conf.presence.grace
        while self.pending_leaves:
            departed = self.pending_leaves[0]
            change = await self.call(get_backend().leave, *departed)
            if self.pending_leaves and self.pending_leaves[0] == departed:
                del self.pending_leaves[0]
            self.announce([change])

    async def expire(self, max_age: float) -> bool:
        """Remove expired members, unless that was done within the last ``max_age`` seconds.

        Returns whether they were removed now.
        """
        if self._loop.time() - self._expired_at < max_age:
            return False
        self._expired_at = self._loop.time()
        self.announce(await self.call(get_backend().expire))
        return True

    # changes

    def announce(
        self, changes: Iterable[PresenceChange | None], acting: Connection | None = None
    ) -> None:
        """Publish changes that the backend has returned, and send them to connections here.

        None, which the backend returns if nothing has changed, is ignored. ``acting`` is the
        connection that caused the changes, which is not sent them.
        """
        for change in changes:
            if change is not None:
                self._publish(change)
                self.receive(change, acting)

    def receive(self, change: PresenceChange, acting: Connection | None = None) -> None:
        """Apply a change that was announced; if an earlier one was lost, read the room again."""
        room = self._rooms.get((change.project, change.room))
        if room is None:
            return
        result = room.apply_presence(change)
        if result is ApplyResult.APPLIED:
            self._send_change(room, change, acting)
        elif result is ApplyResult.GAP and room.version is not None:
            self.schedule_refresh(room)

    def _send_change(
        self, room: LocalRoom, change: PresenceChange, acting: Connection | None = None
    ) -> None:
        frames = RoomFrames(change, title=room.title)
        # connections of the member itself do not see that it left and joined again, for example
        # through another connection; they get an update, for the number of participants
        own_frames = frames
        if change.event != "updated":
            own_frames = RoomFrames(replace(change, event="updated"), title=room.title)
        for membership in list(room.memberships.values()):
            if not membership.live or not membership.grant.can_see_members:
                continue
            connection = membership.connection
            if connection is acting:
                continue
            is_own = membership.entry is not None and membership.entry.member == change.member.id
            if is_own and change.event == "left":
                continue
            text = (own_frames if is_own else frames).text(connection.dialect)
            if text is not None:
                membership.push(text)

    # reading again

    async def refresh(self, room: LocalRoom) -> None:
        """Read the members of a room again, and send the changes to connections here."""
        since = room.version
        listed = await self.call(get_backend().list_members, room.key)
        for change in room.reconcile(listed, since):
            self._send_change(room, change)

    def schedule_refresh(self, room: LocalRoom) -> None:
        """Start a task that reads a room again, because a change or broadcast was lost."""
        if room.key not in self._refreshing:
            self._refreshing[room.key] = self._loop.create_task(self._refresh_and_backfill(room))

    async def _refresh_and_backfill(self, room: LocalRoom) -> None:
        set_owner(SERVER)
        try:
            await self.refresh(room)
            await backfill(room)
        except Exception as error:
            logger.warning("A room could not be read; it will be tried again: %r", error)
        finally:
            if self._refreshing.get(room.key) is asyncio.current_task():
                del self._refreshing[room.key]

    async def refresh_stale(self) -> None:
        """Reload the members of rooms for which a published change or broadcast was lost."""
        versions = await self.call(get_backend().versions, list(self._rooms))
        durable = [key for key, room in self._rooms.items() if room.position is not None]
        heads = await run_in_threadpool(history.heads, durable) if durable else {}
        for key, room in list(self._rooms.items()):
            lost_change = room.version is not None and versions.get(key, 0) != room.version
            lost_broadcast = room.position is not None and heads.get(key) not in (
                None,
                room.position,
            )
            if lost_change or lost_broadcast:
                self.schedule_refresh(room)

    def cancel_refresh(self, key: RoomKey) -> None:
        """Cancel the task that reads a room again, since no connection is in the room any more."""
        task = self._refreshing.pop(key, None)
        if task is not None:
            task.cancel()
