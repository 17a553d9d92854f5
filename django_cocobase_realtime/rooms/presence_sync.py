"""Keeps the rooms of this process in step with the presence backend.

All calls of the backend go through one thread, in order. A process holds a lease for its entries
and renews it; if the lease was lost, it enters them again. Changes made here are announced to the
other processes. An announcement is only a hint: versions show what was lost, and it is read again.
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
from ..utils.concurrency import DatabaseThread, run_in_threadpool
from ..utils.transactions import database_for
from . import history
from .broadcasts import backfill
from .local_room import ApplyResult, LocalRoom, RoomMembership
from .room_frames import RoomFrames

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

TICK_INTERVAL = 1.0
"""Seconds between two rounds of `PresenceSync.run`."""
EXPIRE_INTERVAL = 2.0
"""Seconds between two calls of the backend that expire members."""
FLUSH_TIMEOUT = 2.0
"""Seconds that a hub which shuts down takes to report departures."""


class PresenceSync:
    """The presence of this process's connections, and what it knows of others. One per hub.

    ``rooms`` are the rooms that a connection of this process has joined; `RoomManager` maintains
    them. ``publish`` sends an event to the other processes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rooms: Mapping[RoomKey, LocalRoom],
        publish: Callable[[Event], None],
    ) -> None:
        # this process's name in the backend
        self.server = uuid.uuid4().hex
        # connections whose departure the backend does not know yet: lost ones, and those that left
        self.pending_disconnects: list[RoomConnection] = []
        self.pending_leaves: list[RoomConnection] = []
        self._loop = loop
        self._rooms = rooms
        self._publish = publish
        self._thread: DatabaseThread | None = None
        # set to start the next round of `run` early
        self._wake = asyncio.Event()
        # time of the last call that expired members
        self._expired_at = float("-inf")
        # tasks that read a room again
        self._refreshing: dict[RoomKey, asyncio.Task[None]] = {}
        # when to renew the lease
        self._renew_at = float("-inf")
        # a renewal failed: the lease may have been lost without an answer that says so
        self._lease_uncertain = False
        # memberships to enter again after the lease was lost
        self._to_reenter: dict[RoomMembership, None] = {}

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the backend. Calls are made one after the other, in order."""
        if self._thread is None:
            self._thread = DatabaseThread(database_for(PresenceRoom))
        return await self._thread.run(function, *args, **kwargs)

    # the background task

    async def run(self) -> None:
        """Report departures, renew the lease, expire members and find lost changes, forever.

        Started when the first connection joins a room. Asks nothing of the backend after the last
        one has left and every grace period is over.
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
                continue  # every lost connection has expired
            try:
                await self.flush_departures()
                await self.renew_if_due()
                if await self.expire(EXPIRE_INTERVAL):
                    await self.refresh_stale()
            except Exception as error:
                logger.warning("Presence does not answer, trying again: %r", error)

    def wake(self) -> None:
        """Start the next round of `run` now."""
        self._wake.set()

    async def stop(self) -> None:
        """Report departures, for a short time, and close the thread.

        What the backend does not learn now, it learns when the lease expires.
        """
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await self.flush_departures()
        except Exception as error:
            logger.warning("Departures could not be reported to presence: %r", error)
        if self._thread is not None:
            self._thread.close()
            self._thread = None
        self._renew_at = float("-inf")  # the next room that is joined renews it first

    # the lease

    async def renew_if_due(self) -> None:
        """Renew the lease if it is time. If it was lost, enter all memberships again."""
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
            self._renew_at = float("-inf")  # the others in the next round
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

    async def leave(self, left: RoomConnection, acting: Connection | None = None) -> None:
        """Report that a connection left; if that fails, it is reported later."""
        try:
            change = await self.call(get_backend().leave, *left)
        except BaseException:
            self.pending_leaves.append(left)
            raise
        self.announce([change], acting)

    async def flush_departures(self) -> None:
        """Report lost connections and those that left. Those that fail are kept.

        Raises what the backend raises.
        """
        lost, self.pending_disconnects = self.pending_disconnects, []
        if lost:
            try:
                await self.call(get_backend().mark_disconnected, lost, conf.presence.grace)
            except BaseException:
                self.pending_disconnects[:0] = lost
                raise
        while self.pending_leaves:
            left = self.pending_leaves[0]
            change = await self.call(get_backend().leave, *left)
            if self.pending_leaves and self.pending_leaves[0] == left:
                del self.pending_leaves[0]
            self.announce([change])

    async def expire(self, max_age: float) -> bool:
        """Remove members whose time is over, unless that was done ``max_age`` seconds ago or less.

        Returns whether it was done now.
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
        """Publish changes that were made here, and send them to the connections here.

        None stands for a call of the backend that changed nothing. The connection ``acting``
        caused the change, and is not sent it.
        """
        for change in changes:
            if change is not None:
                self._publish(change)
                self.receive(change, acting)

    def receive(self, change: PresenceChange, acting: Connection | None = None) -> None:
        """Handle a change that was announced."""
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
        # For the member itself it never left: its own re-entry only updates the participants.
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
                connection.writer.push(text)

    # reading again

    async def refresh(self, room: LocalRoom) -> None:
        """Read the list of members again, and send what changed."""
        since = room.version
        listed = await self.call(get_backend().list_members, room.key)
        for change in room.reconcile(listed, since):
            self._send_change(room, change)

    def schedule_refresh(self, room: LocalRoom) -> None:
        """Read a room again in a task of its own: a change or broadcast was lost."""
        if room.key not in self._refreshing:
            self._refreshing[room.key] = self._loop.create_task(self._refresh_and_backfill(room))

    async def _refresh_and_backfill(self, room: LocalRoom) -> None:
        try:
            await self.refresh(room)
            await backfill(room)
        except Exception as error:
            logger.warning("A room could not be read, trying again: %r", error)
        finally:
            if self._refreshing.get(room.key) is asyncio.current_task():
                del self._refreshing[room.key]

    async def refresh_stale(self) -> None:
        """Find rooms of which a change or broadcast was lost, and read them again."""
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
        """Stop reading a room that no connection here is in any more."""
        task = self._refreshing.pop(key, None)
        if task is not None:
            task.cancel()
