"""What a hub does for rooms by the clock: renew its lease, sweep, look for what was missed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..conf import conf

if TYPE_CHECKING:
    from .room_manager import RoomManager

logger = logging.getLogger(__name__)

TICK_INTERVAL = 1.0  # seconds between looks
EXPIRE_INTERVAL = 2.0  # seconds between sweeps for those whose time is over
FLUSH_TIMEOUT = 2.0  # seconds a hub that rests takes to tell who left


async def run(rooms: RoomManager) -> None:
    """For ever, once a first connection was in a room; asks nothing while nobody is or was."""
    loop = asyncio.get_running_loop()
    busy = loop.time()
    wake = rooms.wake
    while True:
        try:
            async with asyncio.timeout(TICK_INTERVAL):
                await wake.wait()
        except TimeoutError:
            pass
        wake.clear()
        now = loop.time()
        if rooms.rooms or rooms.pending_disconnects or rooms.pending_leaves:
            busy = now
        elif now - busy > conf.presence.lease + conf.presence.grace:
            continue  # whoever lingered was swept
        try:
            await rooms.flush()
            await rooms.lease.renew_if_due()
            if await rooms.expire(EXPIRE_INTERVAL):
                await rooms.members.refresh_stale()
        except Exception as error:
            logger.warning("Presence does not answer, trying again: %r", error)


async def flush_departures(rooms: RoomManager) -> None:
    """Tell the backend who left, before the hub rests; what it does not hear its lease tells."""
    try:
        async with asyncio.timeout(FLUSH_TIMEOUT):
            await rooms.flush()
    except Exception as error:
        logger.warning("Presence was not told who left: %r", error)
