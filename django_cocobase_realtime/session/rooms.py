"""``join``, ``leave`` and ``broadcast``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..events import Broadcast as Said
from ..events import Sender, now
from ..wire import native
from ..wire.codes import ErrorCode
from ..wire.messages import Broadcast, Join, Leave
from .effects import Enter, Exit, Say, Send, Steps

if TYPE_CHECKING:
    from .machine import Session


def join(session: Session, command: Join) -> Steps:
    """Enter a room of one's project; joining twice is joining once."""
    rooms, limits = session.connection.rooms, session.limits
    if session.too_long(command.room):
        message = f"Names may have {limits.name_bytes} bytes at most."
        yield session.error(ErrorCode.LIMIT_EXCEEDED, message, command.id)
        return
    if command.room not in rooms and len(rooms) >= limits.rooms:
        message = f"A connection may be in {limits.rooms} rooms at most."
        yield session.error(ErrorCode.LIMIT_EXCEEDED, message, command.id)
        return
    members = yield Enter(command.room)
    yield Send(
        native.reply(
            "joined", command.id, room=command.room, participants=len(members), members=members
        )
    )


def leave(session: Session, command: Leave) -> Steps:
    """Leave a room."""
    if command.room not in session.connection.rooms:
        yield _not_joined(session, command)
        return
    yield Exit(command.room)
    yield Send(native.reply("left", command.id, room=command.room))


def broadcast(session: Session, command: Broadcast) -> Steps:
    """Say something to everyone in a room that one has joined."""
    identity = session.identity
    if identity is None or command.room not in session.connection.rooms:
        yield _not_joined(session, command)
        return
    key = identity.user_key
    sent = yield Say(
        Said(
            room=command.room,
            project=identity.project,
            message=command.message,
            at=now(),
            sender=None if key is None else Sender(key, identity.name),
            connection=session.connection.id,
            echo=command.echo,
        )
    )
    if not sent:
        yield session.error(
            ErrorCode.INTERNAL_ERROR,
            "The message could not be sent; try again.",
            command.id,
            retry_after_ms=1000,
        )
    elif command.id is not None:
        yield Send(native.reply("sent", command.id, room=command.room))


def _not_joined(session: Session, command: Leave | Broadcast) -> Send:
    return session.error(ErrorCode.NOT_JOINED, f"Join the room {command.room!r} first.", command.id)
