"""Handlers that carry out the effects of a session that concern collections and rooms.

They do not catch exceptions of the database: the consumer does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from ..declarations.authorization import Grant
from ..declarations.collection import Collection
from ..declarations.operations import OPERATIONS_ROOM
from ..declarations.registry import UnknownCollection, registry, room_registry
from ..declarations.room import RoomGrant
from ..hub.grants import evaluate_collection
from ..hub.hub import Hub
from ..inspection import answers, live
from ..presence.base import PresenceUnavailable
from ..protocol import effects as do
from ..rooms import publisher
from ..rooms.publisher import PublishResult
from ..transport.connection import Connection
from ..utils.concurrency import run_for_subject
from ..utils.repeated_log import log_repeated

logger = logging.getLogger(__name__)

# seconds; refusals take a multiple of it, so that clients cannot infer from the time whether a
# collection exists
REFUSAL_STEP = 0.05

# the hub cannot import this function, which depends on it
Hub.answer = staticmethod(answers.answer)


async def execute(hub: Hub, connection: Connection, effect: do.Effect) -> Any:
    """Carry out an effect and return its result, which `protocol.effects` describes."""
    return await _HANDLERS[type(effect)](hub, connection, effect)


# collections


async def _reauthorize(hub: Hub, connection: Connection, effect: do.Reauthorize) -> None:
    hub.reauthorizer.request([connection])


async def _authorize_collection(
    hub: Hub, connection: Connection, effect: do.AuthorizeCollection
) -> Grant | None:
    await hub.reauthorizer.wait(connection)
    identity, started_at = connection.identity, time.monotonic()
    assert identity is not None

    collection = _find_collection(effect.collection)
    grant: Grant | None = None
    if collection is not None and collection.admits(identity):
        await hub.topics.follow_dependencies(collection)
        key_sets = hub.topics.key_sets
        grant = await evaluate_collection(collection, identity, effect.filters, key_sets)
    else:
        # a thread is used here, too, so that this takes as long as a refusal by the permission;
        # but no queue of the collection, which would show that it exists
        await run_for_subject(None, _do_nothing)
    if grant is None:
        await asyncio.sleep(REFUSAL_STEP - (time.monotonic() - started_at) % REFUSAL_STEP)
    return grant


async def _reserve_filter_cost(
    hub: Hub, connection: Connection, effect: do.ReserveFilterCost
) -> bool:
    return hub.topics.reserve_filter_cost(connection, effect.filter)


def _find_collection(name: str) -> Collection | None:
    """Return the collection with a name, which may be a former one, or None."""
    try:
        return registry.get(name)
    except UnknownCollection:
        return None


def _do_nothing() -> None:
    pass


async def _open_topic(hub: Hub, connection: Connection, effect: do.OpenTopic) -> Any:
    return await hub.topics.open(effect.collection)


async def _attach(hub: Hub, connection: Connection, effect: do.AttachSubscription) -> None:
    hub.attach(effect.subscription, effect.plan)


async def _detach(hub: Hub, connection: Connection, effect: do.DetachSubscription) -> None:
    hub.topics.detach(effect.subscription)


# rooms


async def _authorize_room(
    hub: Hub, connection: Connection, effect: do.AuthorizeRoom
) -> RoomGrant | None:
    while True:
        await hub.reauthorizer.wait(connection)
        version, identity = connection.permissions_version, connection.identity
        room = room_registry.find(effect.room)
        if room is None or identity is None or not room.admits(identity, effect.room):
            return None
        if not room.has_custom_permission:
            return room.grant(identity, effect.room)
        grant = await run_for_subject(room, room.grant, identity, effect.room)
        if connection.permissions_version == version:
            return grant


async def _join_room(hub: Hub, connection: Connection, effect: do.JoinRoom) -> Any:
    before = hub.rooms.membership(connection, effect.request.room)
    result = await _unless_unavailable(hub.rooms.join(connection, effect.request, effect.grant))
    membership = hub.rooms.membership(connection, effect.request.room)
    if membership is not None:
        hub.signals.send_joined(membership)
    elif before is not None:
        hub.signals.send_left(before)
    return result


async def _complete_join(hub: Hub, connection: Connection, effect: do.CompleteJoin) -> None:
    await hub.rooms.complete_join(connection, effect.room, effect.unlisted, effect.history)
    if effect.room == OPERATIONS_ROOM:
        live.start(hub)


async def _leave_room(hub: Hub, connection: Connection, effect: do.LeaveRoom) -> None:
    membership = hub.rooms.membership(connection, effect.room)
    if membership is not None:
        hub.signals.send_left(membership)
    await _unless_unavailable(hub.rooms.leave(connection, effect.room))


async def _wait_for_rooms(hub: Hub, connection: Connection, effect: do.WaitForRooms) -> None:
    await hub.rooms.wait_resumed(connection)


async def _set_room_state(hub: Hub, connection: Connection, effect: do.SetRoomState) -> Any:
    return await _unless_unavailable(
        hub.rooms.set_state(connection, effect.room, dict(effect.state))
    )


async def _publish_to_room(
    hub: Hub, connection: Connection, effect: do.PublishToRoom
) -> PublishResult:
    publishing = publisher.publish(
        effect.event,
        effect.room,
        ephemeral=effect.ephemeral,
        idempotency_key=effect.idempotency_key,
    )
    return await _unless_unavailable(publishing) or PublishResult.FAILED


async def _unless_unavailable(call: Coroutine[Any, Any, Any]) -> Any:
    """Return the call's result, or False if the presence backend does not answer."""
    try:
        return await call
    except PresenceUnavailable as error:
        log_repeated(logger, logging.WARNING, "The presence backend does not answer: %r", error)
        return False


# handlers by the type of their effect
_HANDLERS: dict[type, Callable[[Hub, Connection, Any], Coroutine[Any, Any, Any]]] = {
    do.Reauthorize: _reauthorize,
    do.AuthorizeCollection: _authorize_collection,
    do.ReserveFilterCost: _reserve_filter_cost,
    do.OpenTopic: _open_topic,
    do.AttachSubscription: _attach,
    do.DetachSubscription: _detach,
    do.AuthorizeRoom: _authorize_room,
    do.JoinRoom: _join_room,
    do.CompleteJoin: _complete_join,
    do.LeaveRoom: _leave_room,
    do.WaitForRooms: _wait_for_rooms,
    do.SetRoomState: _set_room_state,
    do.PublishToRoom: _publish_to_room,
}
