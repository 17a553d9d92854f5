"""Saying something to a room: once a key, kept where the room keeps it, then sent."""

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

IDEMPOTENCY_TTL = 300.0  # seconds in which the same idempotency key is the same broadcast


class PublishResult(Enum):
    """What became of a broadcast."""

    SENT = "sent"
    DUPLICATE = "duplicate"
    FAILED = "failed"


def can_publish_directly(room: Room, *, ephemeral: bool, idempotency_key: str | None) -> bool:
    """Whether nothing is to be asked or written before it is sent."""
    return idempotency_key is None and (ephemeral or not room.history_size)


def persist(
    event: Broadcast, room: Room, *, ephemeral: bool = False, idempotency_key: str | None = None
) -> Broadcast | None:
    """The broadcast with its number; None where it was said before. Uses the database.

    A broadcast that cannot be kept can be tried again: it is claimed and kept in one transaction,
    since a database that fails in between does not take a claim back either.
    """
    name = None if idempotency_key is None else _key_name(event, idempotency_key)
    if ephemeral or not room.history_size:
        said_before = name is not None and not get_backend().acquire_key(name, IDEMPOTENCY_TTL)
        return None if said_before else event
    claimed = False
    try:
        with write_transaction(database_for(RoomStream)):
            if name is not None and not get_backend().acquire_key(name, IDEMPOTENCY_TTL):
                return None
            claimed = name is not None
            return history.append(event, room.history_size)
    except BaseException:
        if claimed and name is not None:  # which stands where it is kept elsewhere
            with contextlib.suppress(Exception):
                get_backend().release_key(name)
        raise


def release_key(event: Broadcast, idempotency_key: str | None) -> None:
    """It could not be sent: let it be tried again."""
    if idempotency_key is not None and event.seq is None:
        get_backend().release_key(_key_name(event, idempotency_key))


def _key_name(event: Broadcast, key: str) -> str:
    return f"{len(event.project)}:{event.project}{len(event.room)}:{event.room}{key}"


async def publish(
    event: Broadcast, room: Room, *, ephemeral: bool = False, idempotency_key: str | None = None
) -> PublishResult:
    """Send to everyone in the room. Raises what the database raises; then nothing was sent.

    A kept broadcast counts as sent whatever the channel layer does: who joins is told, and in a
    durable room everyone. Whoever says it may be gone meanwhile.
    """
    if can_publish_directly(room, ephemeral=ephemeral, idempotency_key=idempotency_key):
        return PublishResult.SENT if await broker.send(event) else PublishResult.FAILED
    # what is claimed or kept is sent, too
    said = _persist_and_publish(event, room, ephemeral=ephemeral, idempotency_key=idempotency_key)
    return await run_shielded(said)


async def _persist_and_publish(
    event: Broadcast, room: Room, *, ephemeral: bool, idempotency_key: str | None
) -> PublishResult:
    kept = await run_in_threadpool(
        persist, event, room, ephemeral=ephemeral, idempotency_key=idempotency_key
    )
    if kept is None:
        return PublishResult.DUPLICATE
    if await broker.send(kept) or kept.seq is not None:
        return PublishResult.SENT
    if idempotency_key is not None:
        await run_in_threadpool(release_key, kept, idempotency_key)
    return PublishResult.FAILED


def publish_nowait(
    event: Broadcast, room: Room, *, ephemeral: bool = False, idempotency_key: str | None = None
) -> None:
    """``say`` from synchronous code, without waiting for the channel layer.

    Raises what the database raises; then nothing was sent.
    """
    if not can_publish_directly(room, ephemeral=ephemeral, idempotency_key=idempotency_key):
        kept = persist(event, room, ephemeral=ephemeral, idempotency_key=idempotency_key)
        if kept is None:
            return
        event = kept
    broker.publish(event)
