"""Publishing of broadcasts to rooms. They are stored if the room has a history."""

from __future__ import annotations

import contextlib
from enum import Enum

from ..declarations.room import Room
from ..events import Broadcast
from ..models import RoomStream
from ..presence.base import get_backend
from ..pubsub.broker import broker
from ..utils.concurrency import run_in_threadpool, run_shielded
from ..utils.transactions import database_for, write_transaction
from . import history

# seconds within which only the first of several broadcasts with the same idempotency key is sent
IDEMPOTENCY_TTL = 300.0


class PublishResult(Enum):
    """The result of publishing a broadcast."""

    SENT = "sent"
    # not sent, because another one with the same idempotency key was sent before
    DUPLICATE = "duplicate"
    # not sent, because the channel layer did not accept it
    FAILED = "failed"


async def publish(
    event: Broadcast, room: Room, *, ephemeral: bool = False, idempotency_key: str | None = None
) -> PublishResult:
    """Publish a broadcast to everyone in its room.

    A broadcast that was stored counts as sent even if the channel layer does not accept it,
    because clients that join later get it, and in a durable room all clients do. Raises the
    exceptions of the database; nothing is sent then.
    """
    if can_publish_directly(room, ephemeral=ephemeral, idempotency_key=idempotency_key):
        return PublishResult.SENT if await broker.send(event) else PublishResult.FAILED
    # shielded, so that a stored broadcast is also sent if the caller is cancelled
    return await run_shielded(
        _persist_and_publish(event, room, ephemeral=ephemeral, idempotency_key=idempotency_key)
    )


async def _persist_and_publish(
    event: Broadcast, room: Room, *, ephemeral: bool, idempotency_key: str | None
) -> PublishResult:
    stored = await run_in_threadpool(
        persist, event, room, ephemeral=ephemeral, idempotency_key=idempotency_key
    )
    if stored is None:
        return PublishResult.DUPLICATE
    if await broker.send(stored) or stored.seq is not None:
        return PublishResult.SENT
    if idempotency_key is not None:
        await run_in_threadpool(release_key, stored, idempotency_key)
    return PublishResult.FAILED


def publish_nowait(
    event: Broadcast, room: Room, *, ephemeral: bool = False, idempotency_key: str | None = None
) -> None:
    """Publish a broadcast from synchronous code, without waiting for the channel layer.

    Raises the exceptions of the database; nothing is sent then.
    """
    if not can_publish_directly(room, ephemeral=ephemeral, idempotency_key=idempotency_key):
        stored = persist(event, room, ephemeral=ephemeral, idempotency_key=idempotency_key)
        if stored is None:
            return
        event = stored
    broker.publish(event)


def can_publish_directly(room: Room, *, ephemeral: bool, idempotency_key: str | None) -> bool:
    """Return whether a broadcast can be sent without `persist`."""
    return idempotency_key is None and (ephemeral or not room.history_size)


def persist(
    event: Broadcast, room: Room, *, ephemeral: bool = False, idempotency_key: str | None = None
) -> Broadcast | None:
    """Acquire the idempotency key, if there is one, and store the broadcast, if the room does.

    Returns the broadcast, with its number if it was stored, or None if the key was used before. If
    storing fails, the key is released. Uses the ORM, so it must not be called in an event loop.
    """
    key = None if idempotency_key is None else _key_name(event, idempotency_key)
    if ephemeral or not room.history_size:
        is_duplicate = key is not None and not get_backend().acquire_key(key, IDEMPOTENCY_TTL)
        return None if is_duplicate else event
    is_acquired = False
    try:
        with write_transaction(database_for(RoomStream)):
            if key is not None and not get_backend().acquire_key(key, IDEMPOTENCY_TTL):
                return None
            is_acquired = key is not None
            return history.append(event, room.history_size)
    except BaseException:
        # needed for backends other than the database, which are not rolled back
        if is_acquired and key is not None:
            with contextlib.suppress(Exception):
                get_backend().release_key(key)
        raise


def release_key(event: Broadcast, idempotency_key: str | None) -> None:
    """Release the key of a broadcast that could not be sent, so that it can be sent again."""
    if idempotency_key is not None and event.seq is None:
        get_backend().release_key(_key_name(event, idempotency_key))


def _key_name(event: Broadcast, key: str) -> str:
    """Return the name of a key in the presence backend, which is unique among all rooms."""
    return f"{len(event.project)}:{event.project}{len(event.room)}:{event.room}{key}"
