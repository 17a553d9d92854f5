"""The commands for rooms: ``join``, ``leave``, ``state`` and ``broadcast``."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec

from ..declarations.room import RoomGrant
from ..events import Broadcast, Sender, now
from ..metrics import metrics
from ..rooms import history
from ..rooms.local_room import JoinRequest, JoinResult, RoomMembership
from ..rooms.publisher import PublishResult
from ..wire import commands, frames
from ..wire.codes import ErrorCode
from .effects import (
    AuthorizeRoom,
    CompleteJoin,
    Effect,
    JoinRoom,
    LeaveRoom,
    PublishToRoom,
    Send,
    SetRoomState,
    Steps,
    WaitForRooms,
)
from .state import SessionState

# `retry_after_ms` that is sent if the presence backend or the channel layer does not answer
RETRY_MS = 1000


def join(session: SessionState, command: commands.Join) -> Steps:
    """Join a room of the client's project. Joining again may change the state and presence."""
    rooms, limits = session.rooms, session.limits
    if session.is_name_too_long(command.room):
        message = f"Names may have {limits.name_bytes} bytes at most."
        yield session.error(ErrorCode.LIMIT_EXCEEDED, message, command.id)
        return
    if command.room not in rooms and len(rooms) >= limits.rooms:
        message = f"A connection may be in {limits.rooms} rooms at most."
        yield session.error(ErrorCode.LIMIT_EXCEEDED, message, command.id)
        return
    if command.state is not None and _is_too_large(session, command.state):
        yield _state_too_large(session, command)
        return
    grant: RoomGrant | None = yield AuthorizeRoom(command.room)
    if grant is None:
        if command.room in rooms:  # joined before, when the permission allowed it
            yield LeaveRoom(command.room)
        message = f"You may not join the room {command.room!r}."
        yield session.error(ErrorCode.FORBIDDEN, message, command.id)
        return
    if command.state is not None and not grant.can_be_member:
        message = "You may only read: join without a state."
        yield session.error(ErrorCode.FORBIDDEN, message, command.id)
        return
    request = JoinRequest(
        room=command.room,
        presence=command.presence,
        state=command.state,
        history=command.history,
        since=command.since,
    )
    result: JoinResult | bool | None = yield JoinRoom(request, grant)
    if not isinstance(result, JoinResult):
        yield _unavailable(session, command.id)
        return
    listed, others = frames.members_page(result.members)
    reply = _joined(session, command, result, listed)
    if others:
        reply["more"] = True
    # the reply comes before kept broadcasts, and these come before new ones
    yield Send(reply)
    yield CompleteJoin(command.room, [member.id for member in others], result.history)


def _joined(
    session: SessionState, command: commands.Join, result: JoinResult, listed: list[frames.Frame]
) -> frames.Frame:
    frame = frames.reply(
        "joined",
        command.id,
        room=command.room,
        participants=result.participants,
        members=listed,
    )
    if result.title != command.room:
        frame["title"] = result.title
    page, identity = result.history, session.identity
    if page is not None and identity is not None:
        frame["cursor"] = history.cursor((identity.project, command.room), page.position)
    if command.since is not None:
        reason = "not_kept" if page is None else page.resync
        frame["resumed"] = reason is None
        metrics.resumes["room", reason or "resumed"] += 1
        if reason is not None:
            frame["resync"] = {"reason": reason}
    return frame


def leave(session: SessionState, command: commands.Leave) -> Steps:
    """Leave a room."""
    if command.room not in session.rooms:
        yield _not_joined(session, command)
        return
    yield LeaveRoom(command.room)
    yield Send(frames.reply("left", command.id, room=command.room))


def set_state(session: SessionState, command: commands.State) -> Steps:
    """Set the member's state in a room, which the other members see."""
    membership = yield from _membership_to_write(session, command)
    if membership is None:
        return
    if membership.entry is None:
        message = "You have no state, because you are not a member; join with presence."
        yield session.error(ErrorCode.FORBIDDEN, message, command.id)
        return
    if _is_too_large(session, command.state):
        yield _state_too_large(session, command)
        return
    if (yield SetRoomState(command.room, command.state)) is False:
        yield _unavailable(session, command.id)
    elif command.id is not None:
        yield Send(frames.reply("state", command.id, room=command.room))


def broadcast(session: SessionState, command: commands.Broadcast) -> Steps:
    """Send a message to everyone in a room that the client has joined."""
    membership = yield from _membership_to_write(session, command)
    if membership is None:
        return
    if not membership.grant.can_broadcast:
        yield _may_not_write(session, command)
        return
    limit = session.limits.event_bytes
    # with the default limits, a message cannot be larger
    if session.limits.message_bytes > limit and _length(command.message) > limit:
        message = f"A message may have {limit} bytes at most."
        yield session.error(ErrorCode.TOO_LARGE, message, command.id)
        return
    event = Broadcast(
        room=command.room,
        project=membership.key[0],
        message=command.message,
        at=now(),
        sender=_sender(session),
        connection=session.connection.id,
        echo=command.echo,
    )
    result = yield PublishToRoom(
        event,
        membership.grant.room,
        ephemeral=command.ephemeral,
        idempotency_key=command.idempotency_key,
    )
    if result is PublishResult.FAILED:
        yield _unavailable(session, command.id)
    elif command.id is not None:
        reply = frames.reply("sent", command.id, room=command.room)
        if result is PublishResult.DUPLICATE:
            reply["duplicate"] = True
        yield Send(reply)


def _membership_to_write(
    session: SessionState, command: commands.State | commands.Broadcast
) -> Generator[Effect, Any, RoomMembership | None]:
    """Return the membership of a room in which the client may write, or refuse and return None.

    The grant may be that of an earlier credential, so the present one is checked as well.
    """
    yield WaitForRooms()
    membership, identity = session.rooms.get(command.room), session.identity
    if membership is None or identity is None:
        yield _not_joined(session, command)
        return None
    if identity.is_read_only or not membership.grant.room.admits(identity, command.room):
        yield _may_not_write(session, command)
        return None
    return membership


def _sender(session: SessionState) -> Sender | None:
    """Return the sender: the user, or what an SDK client without a user claims."""
    identity, claimed = session.identity, session.connection.claimed_user
    if identity is not None and identity.user_key is not None:
        return Sender(identity.user_key, identity.name)
    return None if claimed is None else Sender(*claimed, verified=False)


def _is_too_large(session: SessionState, state: dict[str, Any]) -> bool:
    return _length(state) > session.limits.state_bytes


def _length(value: Any) -> int:
    return len(msgspec.json.encode(value))


def _state_too_large(session: SessionState, command: commands.Join | commands.State) -> Send:
    message = f"A state may have {session.limits.state_bytes} bytes at most."
    return session.error(ErrorCode.TOO_LARGE, message, command.id)


def _unavailable(session: SessionState, id: Any) -> Send:
    return session.error(
        ErrorCode.INTERNAL_ERROR, "The request failed; try again.", id, retry_after_ms=RETRY_MS
    )


def _may_not_write(session: SessionState, command: commands.State | commands.Broadcast) -> Send:
    noun = "broadcast" if isinstance(command, commands.Broadcast) else "set a state"
    message = f"You may not {noun} in the room {command.room!r}."
    return session.error(ErrorCode.FORBIDDEN, message, command.id)


def _not_joined(
    session: SessionState, command: commands.Leave | commands.State | commands.Broadcast
) -> Send:
    return session.error(ErrorCode.NOT_JOINED, f"Join the room {command.room!r} first.", command.id)
