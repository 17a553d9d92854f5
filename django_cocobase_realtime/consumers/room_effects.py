"""Carries out what a session wants of rooms."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

from ..declarations.registry import room_registry
from ..declarations.room import RoomGrant
from ..hub.hub import Hub
from ..presence.base import PresenceUnavailable
from ..protocol import effects as do
from ..rooms import publisher
from ..rooms.publisher import PublishResult
from ..rooms.room_frames import RoomFrames
from ..transport.connection import Connection
from ..utils.concurrency import run_in_threadpool

logger = logging.getLogger(__name__)


async def perform(hub: Hub, connection: Connection, effect: do.Effect) -> Any:
    """One effect's result, as ``session.effects`` has it. Raises what the database raises."""
    match effect:
        case do.AuthorizeRoom(room):
            return await _permit(hub, connection, room)
        case do.JoinRoom(wish, grant):
            return await _try(hub.rooms.join(connection, wish, grant))
        case do.ReplayBroadcast(event):
            await connection.writer.wait_drained()
            title = hub.rooms.get_title(connection, event.room)
            text = RoomFrames(event, title=title, replayed=True).text(connection.dialect)
            if text is not None:
                connection.writer.push(text)
        case do.FinishReplay(room, past):
            hub.rooms.finish_replay(connection, room, past)
        case do.LeaveRoom(room):
            await _try(hub.rooms.leave(connection, room))
        case do.SetRoomState(room, state):
            return await _try(hub.rooms.set_state(connection, room, dict(state)))
        case do.PublishToRoom(event, room, ephemeral, key):
            said = await _try(
                publisher.publish(event, room, ephemeral=ephemeral, idempotency_key=key)
            )
            return said or PublishResult.FAILED
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
        await hub.wait_authorized(connection)
        room, identity, rights = (
            room_registry.find(name),
            connection.identity,
            connection.permissions_version,
        )
        if room is None or identity is None:
            return None
        if not room.has_custom_permission:
            return room.grant(identity, name)
        grant = await run_in_threadpool(room.grant, identity, name)
        if connection.permissions_version == rights:
            return grant
