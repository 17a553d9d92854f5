"""Who is in the rooms, as this process's connections are told: who comes, who goes, who changes.

What is announced over the channel layer is only a hint: versions and numbers show what was lost,
and it is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..events import PresenceChange
from ..presence.base import RoomKey, get_backend
from ..utils.concurrency import run_in_threadpool
from . import history
from .broadcasts import backfill
from .local_room import ApplyResult, LocalRoom
from .room_frames import RoomFrames

if TYPE_CHECKING:
    from ..transport.connection import Connection
    from .room_manager import RoomManager

logger = logging.getLogger(__name__)


class Members:
    """One a hub, beside its `Rooms`."""

    def __init__(self, rooms: RoomManager) -> None:
        self._rooms = rooms
        self._refreshing: dict[RoomKey, asyncio.Task[None]] = {}

    def announce(
        self, moves: Iterable[PresenceChange | None], acting: Connection | None = None
    ) -> None:
        """Tell all processes, and those who are here at once, of changes that were made here.

        None is a call of the backend that changed nothing.
        """
        for move in moves:
            if move is not None:
                self._rooms.hub.publish(move)
                self.receive(move, acting)

    def receive(self, move: PresenceChange, acting: Connection | None = None) -> None:
        """A change was announced."""
        local = self._rooms.rooms.get((move.project, move.room))
        if local is None:
            return
        news = local.apply_presence(move)
        if news is ApplyResult.APPLIED:
            self._send_change(local, move, acting)
        elif news is ApplyResult.GAP and local.version is not None:
            self.schedule_refresh(local)

    def _send_change(
        self, local: LocalRoom, move: PresenceChange, acting: Connection | None = None
    ) -> None:
        frames = RoomFrames(move, title=local.title)
        # to himself a member never left: entered again, he learns how many there are by now
        own_frames = frames
        if move.event != "updated":
            own_frames = RoomFrames(replace(move, event="updated"), title=local.title)
        for seat in list(local.memberships.values()):
            if not seat.live or not seat.grant.can_see_members or seat.connection is acting:
                continue
            own = seat.entry is not None and seat.entry.member == move.member.id
            if own and move.event == "left":
                continue
            text = (own_frames if own else frames).text(seat.connection.dialect)
            if text is not None:
                seat.connection.writer.push(text)

    async def refresh(self, local: LocalRoom) -> None:
        """Read the list of members anew, and tell what changed."""
        since = local.version
        roster = await self._rooms.call(get_backend().list_members, local.key)
        for move in local.reconcile(roster, since):
            self._send_change(local, move)

    def schedule_refresh(self, local: LocalRoom) -> None:
        """Something of this room was lost: read it by a task of its own."""
        if local.key not in self._refreshing:
            self._refreshing[local.key] = self._rooms.hub.loop.create_task(self._catch_up(local))

    async def _catch_up(self, local: LocalRoom) -> None:
        try:
            await self.refresh(local)
            await backfill(local)
        except Exception as error:
            logger.warning("A room could not be read, trying again: %r", error)
        finally:
            if self._refreshing.get(local.key) is asyncio.current_task():
                del self._refreshing[local.key]

    async def refresh_stale(self) -> None:
        """Find the rooms in which something was missed, and read it."""
        versions = await self._rooms.call(get_backend().versions, list(self._rooms.rooms))
        durable = [key for key, local in self._rooms.rooms.items() if local.position is not None]
        heads = await run_in_threadpool(history.heads, durable) if durable else {}
        for key, local in list(self._rooms.rooms.items()):
            moved = local.version is not None and versions.get(key, 0) != local.version
            spoken = local.position is not None and heads.get(key) not in (None, local.position)
            if moved or spoken:
                self.schedule_refresh(local)

    def cancel_refresh(self, key: RoomKey) -> None:
        """Nobody here is in this room any more."""
        reading = self._refreshing.pop(key, None)
        if reading is not None:
            reading.cancel()
