"""``join``, ``leave``, ``state`` and ``broadcast``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..declarations.room import RoomGrant
from ..events import Broadcast as Said
from ..events import Sender, now
from ..rooms import history
from ..rooms.local_room import JoinRequest, JoinResult
from ..rooms.publisher import PublishResult
from ..wire import frames
from ..wire.codes import ErrorCode
from ..wire.commands import Broadcast, Join, Leave, State
from .effects import (
    AuthorizeRoom,
    FinishReplay,
    JoinRoom,
    LeaveRoom,
    PublishToRoom,
    ReplayBroadcast,
    Send,
    SetRoomState,
    Steps,
)

if TYPE_CHECKING:
    from .session import Session

RETRY_MS = 1000


def join(session: Session, command: Join) -> Steps:
    """Enter a room of one's project; joining twice is joining once, and may change how."""
    rooms, limits = session.connection.rooms, session.limits
    if session.is_name_too_long(command.room):
        message = f"Names may have {limits.name_bytes} bytes at most."
        yield session.error(ErrorCode.LIMIT_EXCEEDED, message, command.id)
        return
    if command.room not in rooms and len(rooms) >= limits.rooms:
        message = f"A connection may be in {limits.rooms} rooms at most."
        yield session.error(ErrorCode.LIMIT_EXCEEDED, message, command.id)
        return
    if command.state is not None and _too_large(session, command.state):
        yield _refused_state(session, command)
        return
    grant: RoomGrant | None = yield AuthorizeRoom(command.room)
    if grant is None:
        if command.room in rooms:  # it could be joined before
            yield LeaveRoom(command.room)
        message = f"You may not join the room {command.room!r}."
        yield session.error(ErrorCode.FORBIDDEN, message, command.id)
        return
    wish = JoinRequest(
        room=command.room,
        presence=command.presence,
        state=command.state,
        history=command.history,
        since=command.since,
    )
    joined: JoinResult | bool | None = yield JoinRoom(wish, grant)
    if not isinstance(joined, JoinResult):
        yield _unavailable(session, command.id)
        return
    # the reply first: what was said before follows it, then what is said from now on
    yield Send(_joined(session, command, joined))
    past = joined.history
    for event in () if past is None else past.events:
        yield ReplayBroadcast(event)
    yield FinishReplay(command.room, past)


def _joined(session: Session, command: Join, joined: JoinResult) -> frames.Frame:
    frame = frames.reply(
        "joined",
        command.id,
        room=command.room,
        participants=joined.participants,
        members=[frames.member(member) for member in joined.members],
    )
    if joined.title != command.room:
        frame["title"] = joined.title
    past, identity = joined.history, session.identity
    if past is not None and identity is not None:
        position = past.position
        frame["cursor"] = history.cursor((identity.project, command.room), position)
    if command.since is not None:
        reason = "not_kept" if past is None else past.resync
        frame["resumed"] = reason is None
        if reason is not None:
            frame["resync"] = {"reason": reason}
    return frame


def leave(session: Session, command: Leave) -> Steps:
    """Leave a room."""
    if command.room not in session.connection.rooms:
        yield _not_joined(session, command)
        return
    yield LeaveRoom(command.room)
    yield Send(frames.reply("left", command.id, room=command.room))


def state(session: Session, command: State) -> Steps:
    """Change one's state in a room, for the others to see."""
    seat = session.connection.rooms.get(command.room)
    if seat is None:
        yield _not_joined(session, command)
        return
    if seat.entry is None:
        message = "Who is not listed has no state; join with presence."
        yield session.error(ErrorCode.FORBIDDEN, message, command.id)
        return
    if _too_large(session, command.state):
        yield _refused_state(session, command)
        return
    if (yield SetRoomState(command.room, command.state)) is False:
        yield _unavailable(session, command.id)
    elif command.id is not None:
        yield Send(frames.reply("state", command.id, room=command.room))


def broadcast(session: Session, command: Broadcast) -> Steps:
    """Say something to everyone in a room that one has joined."""
    identity = session.identity
    seat = session.connection.rooms.get(command.room)
    if identity is None or seat is None:
        yield _not_joined(session, command)
        return
    if not seat.grant.can_broadcast:
        message = f"You may listen in the room {command.room!r}, not speak."
        yield session.error(ErrorCode.FORBIDDEN, message, command.id)
        return
    event = Said(
        room=command.room,
        project=identity.project,
        message=command.message,
        at=now(),
        sender=_sender(session),
        connection=session.connection.id,
        echo=command.echo,
    )
    outcome = yield PublishToRoom(
        event,
        seat.grant.room,
        ephemeral=command.ephemeral,
        idempotency_key=command.idempotency_key,
    )
    if outcome is PublishResult.FAILED:
        yield _unavailable(session, command.id)
    elif command.id is not None:
        reply = frames.reply("sent", command.id, room=command.room)
        if outcome is PublishResult.DUPLICATE:
            reply["duplicate"] = True
        yield Send(reply)


def _sender(session: Session) -> Sender | None:
    """Who speaks: a user, or whom a client without one claims to be."""
    identity, claimed = session.identity, session.connection.claimed
    if identity is not None and identity.user_key is not None:
        return Sender(identity.user_key, identity.name)
    return None if claimed is None else Sender(*claimed, verified=False)


def _too_large(session: Session, state: dict[str, Any]) -> bool:
    return len(msgspec.json.encode(state)) > session.limits.state_bytes


def _refused_state(session: Session, command: Join | State) -> Send:
    message = f"A state may have {session.limits.state_bytes} bytes at most."
    return session.error(ErrorCode.TOO_LARGE, message, command.id)


def _unavailable(session: Session, id: Any) -> Send:
    return session.error(
        ErrorCode.INTERNAL_ERROR, "That could not be done; try again.", id, retry_after_ms=RETRY_MS
    )


def _not_joined(session: Session, command: Leave | State | Broadcast) -> Send:
    return session.error(ErrorCode.NOT_JOINED, f"Join the room {command.room!r} first.", command.id)
