"""Saying something to a room: once a key, kept where the room keeps it, then sent."""

from __future__ import annotations

import contextlib
from enum import Enum

from ..declarations.room import Room
from ..events import Broadcast
from ..models import RoomStream
from ..presence.base import presence
from ..pubsub.broker import broker
from ..utils.concurrency import run
from ..utils.tasks import finish
from ..utils.transactions import database_for, write_transaction
from . import history

REMEMBERED = 300.0  # seconds in which the same idempotency key is the same broadcast


class Outcome(Enum):
    """What became of a broadcast."""

    SENT = "sent"
    DUPLICATE = "duplicate"
    FAILED = "failed"


def is_plain(room: Room, *, ephemeral: bool, idempotency_key: str | None) -> bool:
    """Whether nothing is to be asked or written before it is sent."""
    return idempotency_key is None and (ephemeral or not room.kept)


def keep(
    event: Broadcast, room: Room, *, ephemeral: bool = False, idempotency_key: str | None = None
) -> Broadcast | None:
    """The broadcast with its number; None where it was said before. Uses the database.

    A broadcast that cannot be kept can be tried again: it is claimed and kept in one transaction,
    since a database that fails in between does not take a claim back either.
    """
    name = None if idempotency_key is None else _claim(event, idempotency_key)
    if ephemeral or not room.kept:
        said_before = name is not None and not presence().claim(name, REMEMBERED)
        return None if said_before else event
    claimed = False
    try:
        with write_transaction(database_for(RoomStream)):
            if name is not None and not presence().claim(name, REMEMBERED):
                return None
            claimed = name is not None
            return history.append(event, room.kept)
    except BaseException:
        if claimed and name is not None:  # which stands where it is kept elsewhere
            with contextlib.suppress(Exception):
                presence().unclaim(name)
        raise


def forget(event: Broadcast, idempotency_key: str | None) -> None:
    """It could not be sent: let it be tried again."""
    if idempotency_key is not None and event.seq is None:
        presence().unclaim(_claim(event, idempotency_key))


def _claim(event: Broadcast, key: str) -> str:
    return f"{len(event.project)}:{event.project}{len(event.room)}:{event.room}{key}"


async def say(
    event: Broadcast, room: Room, *, ephemeral: bool = False, idempotency_key: str | None = None
) -> Outcome:
    """Send to everyone in the room. Raises what the database raises; then nothing was sent.

    A kept broadcast counts as sent whatever the channel layer does: who joins is told, and in a
    durable room everyone. Whoever says it may be gone meanwhile.
    """
    if is_plain(room, ephemeral=ephemeral, idempotency_key=idempotency_key):
        return Outcome.SENT if await broker.send(event) else Outcome.FAILED
    # what is claimed or kept is sent, too
    said = _say(event, room, ephemeral=ephemeral, idempotency_key=idempotency_key)
    return await finish(said)


async def _say(
    event: Broadcast, room: Room, *, ephemeral: bool, idempotency_key: str | None
) -> Outcome:
    kept = await run(keep, event, room, ephemeral=ephemeral, idempotency_key=idempotency_key)
    if kept is None:
        return Outcome.DUPLICATE
    if await broker.send(kept) or kept.seq is not None:
        return Outcome.SENT
    if idempotency_key is not None:
        await run(forget, kept, idempotency_key)
    return Outcome.FAILED


def say_soon(
    event: Broadcast, room: Room, *, ephemeral: bool = False, idempotency_key: str | None = None
) -> None:
    """``say`` from synchronous code, without waiting for the channel layer.

    Raises what the database raises; then nothing was sent.
    """
    if not is_plain(room, ephemeral=ephemeral, idempotency_key=idempotency_key):
        kept = keep(event, room, ephemeral=ephemeral, idempotency_key=idempotency_key)
        if kept is None:
            return
        event = kept
    broker.publish(event)
