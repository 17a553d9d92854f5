"""The broadcasts to the room of the admin's pages."""

from __future__ import annotations

import asyncio
import weakref
from functools import partial

import msgspec

from ..declarations.operations import OPERATIONS_ROOM
from ..events import Broadcast, now
from ..hub.hub import Hub
from .records import ServerSummary
from .requests import request_all

# seconds between two broadcasts
INTERVAL = 2.0

# hubs that have a running task
_active: weakref.WeakSet[Hub] = weakref.WeakSet()


def start(hub: Hub) -> None:
    """Start to broadcast to a hub's connections in the room, until none of them is left.

    Must be called after a connection has joined.
    """
    if hub not in _active:
        _active.add(hub)
        hub.start_task(partial(_broadcast_summaries, hub))


async def _broadcast_summaries(hub: Hub) -> None:
    """Regularly ask all processes for their totals, and send these to the room.

    Only processes in which a connection has joined the room do so, so that nothing is computed
    while all pages are closed. The summaries need not pass the channel layer as broadcasts.
    """
    _active.add(hub)
    try:
        while any(room == OPERATIONS_ROOM for _, room in hub.rooms.rooms):
            summaries = await request_all("servers", ServerSummary)
            message = {"servers": [msgspec.to_builtins(summary) for summary in summaries]}
            for project, room in list(hub.rooms.rooms):
                if room == OPERATIONS_ROOM:
                    hub.dispatch(Broadcast(room, project, message, now()))
            await asyncio.sleep(INTERVAL)
    finally:
        _active.discard(hub)
