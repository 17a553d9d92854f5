"""What a hub does for rooms by the clock: renew its lease, sweep, look for what was missed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..conf import conf

if TYPE_CHECKING:
    from .room_manager import Rooms

logger = logging.getLogger(__name__)

TICK = 1.0  # seconds between looks
SWEEP = 2.0  # seconds between sweeps for those whose time is over
FAREWELL = 2.0  # seconds a hub that rests takes to tell who left


async def tend(rooms: Rooms) -> None:
    """For ever, once a first connection was in a room; asks nothing while nobody is or was."""
    loop = asyncio.get_running_loop()
    busy = loop.time()
    wake = rooms.wake
    while True:
        try:
            async with asyncio.timeout(TICK):
                await wake.wait()
        except TimeoutError:
            pass
        wake.clear()
        now = loop.time()
        if rooms.local or rooms.lost or rooms.left:
            busy = now
        elif now - busy > conf.presence.lease + conf.presence.grace:
            continue  # whoever lingered was swept
        try:
            await rooms.flush()
            await rooms.lease.hold()
            if await rooms.sweep(SWEEP):
                await rooms.members.compare()
        except Exception as error:
            logger.warning("Presence does not answer, trying again: %r", error)


async def say_farewell(rooms: Rooms) -> None:
    """Tell the backend who left, before the hub rests; what it does not hear its lease tells."""
    try:
        async with asyncio.timeout(FAREWELL):
            await rooms.flush()
    except Exception as error:
        logger.warning("Presence was not told who left: %r", error)
