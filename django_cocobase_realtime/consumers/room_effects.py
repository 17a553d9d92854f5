"""Carries out what a session wants of rooms."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

from ..declarations.room import RoomGrant, room_registry
from ..hub.hub import Hub
from ..presence.base import PresenceUnavailable
from ..protocol import effects as do
from ..rooms.publisher import Outcome, say
from ..rooms.room_frames import RoomFrames
from ..transport.connection import Connection
from ..utils.concurrency import run

logger = logging.getLogger(__name__)


async def perform(hub: Hub, connection: Connection, effect: do.Effect) -> Any:
    """One effect's result, as ``session.effects`` has it. Raises what the database raises."""
    match effect:
        case do.Permit(room):
            return await _permit(hub, connection, room)
        case do.Enter(wish, grant):
            return await _try(hub.rooms.enter(connection, wish, grant))
        case do.Replay(event):
            await connection.writer.drained()
            title = hub.rooms.title(connection, event.room)
            text = RoomFrames(event, title=title, replayed=True).text(connection.dialect)
            if text is not None:
                connection.writer.push(text)
        case do.Settle(room, past):
            hub.rooms.settle(connection, room, past)
        case do.Exit(room):
            await _try(hub.rooms.leave(connection, room))
        case do.Update(room, state):
            return await _try(hub.rooms.update(connection, room, dict(state)))
        case do.Say(event, room, ephemeral, key):
            said = await _try(say(event, room, ephemeral=ephemeral, idempotency_key=key))
            return said or Outcome.FAILED
    return None


async def _try(work: Coroutine[Any, Any, Any]) -> Any:
    """What ``work`` returns; False where presence does not answer."""
    try:
        return await work
    except PresenceUnavailable as error:
        logger.warning("Presence does not answer: %r", error)
        return False


async def _permit(hub: Hub, connection: Connection, name: str) -> RoomGrant | None:
    while True:
        await hub.settled(connection)
        room, identity, rights = room_registry.find(name), connection.identity, connection.rights
        if room is None or identity is None:
            return None
        if not room.asks:
            return room.grant(identity, name)
        grant = await run(room.grant, identity, name)
        if connection.rights == rights:
            return grant
