"""Publishes broadcasts to rooms: once per idempotency key, stored if the room keeps history."""

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

IDEMPOTENCY_TTL = 300.0
"""Seconds within which broadcasts with the same idempotency key are one broadcast."""


class PublishResult(Enum):
    """What happened to a broadcast."""

    SENT = "sent"
    # another one with its idempotency key was sent before
    DUPLICATE = "duplicate"
    # the channel layer did not accept it
    FAILED = "failed"


async def publish(
    event: Broadcast, room: Room, *, ephemeral: bool = False, idempotency_key: str | None = None
) -> PublishResult:
    """Send a broadcast to everyone in its room.

    Raises what the database raises; then nothing was sent. A stored broadcast counts as sent
    whatever the channel layer does: clients that join get it, and in a durable room everyone does.
    """
    if can_publish_directly(room, ephemeral=ephemeral, idempotency_key=idempotency_key):
        return PublishResult.SENT if await broker.send(event) else PublishResult.FAILED
    # shielded: what was stored is also sent, even if the caller is cancelled
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
    """Like `publish`, from synchronous code, without waiting for the channel layer.

    Raises what the database raises; then nothing was sent.
    """
    if not can_publish_directly(room, ephemeral=ephemeral, idempotency_key=idempotency_key):
        stored = persist(event, room, ephemeral=ephemeral, idempotency_key=idempotency_key)
        if stored is None:
            return
        event = stored
    broker.publish(event)


def can_publish_directly(room: Room, *, ephemeral: bool, idempotency_key: str | None) -> bool:
    """Return whether a broadcast needs no database before it is sent."""
    return idempotency_key is None and (ephemeral or not room.history_size)


def persist(
    event: Broadcast, room: Room, *, ephemeral: bool = False, idempotency_key: str | None = None
) -> Broadcast | None:
    """Acquire the idempotency key and store the broadcast, as far as that is necessary.

    Returns the broadcast with its number, or None if the key is taken. Uses the database. Both
    steps are one transaction: if storing fails, the broadcast can be tried again.
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
        if is_acquired and key is not None:  # a backend outside the database was not rolled back
            with contextlib.suppress(Exception):
                get_backend().release_key(key)
        raise


def release_key(event: Broadcast, idempotency_key: str | None) -> None:
    """Release the key of a broadcast that could not be sent, so that it can be tried again."""
    if idempotency_key is not None and event.seq is None:
        get_backend().release_key(_key_name(event, idempotency_key))


def _key_name(event: Broadcast, key: str) -> str:
    return f"{len(event.project)}:{event.project}{len(event.room)}:{event.room}{key}"
