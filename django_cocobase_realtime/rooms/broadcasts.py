"""What is said in rooms, on its way to this process's connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..conf import conf
from ..events import Broadcast, DirectMessage
from ..log.cursor import Position
from ..utils.concurrency import run_in_threadpool
from ..wire.codes import CloseCode
from . import history
from .local_room import LocalRoom, RoomMembership
from .room_frames import RoomFrames

if TYPE_CHECKING:
    from ..hub.hub import Hub


def deliver_to_room(local: LocalRoom, event: Broadcast) -> None:
    """To all who sit in the room here; held back from those who are still told the past."""
    frames = RoomFrames(event, title=local.title)
    for seat in list(local.memberships.values()):
        if not event.echo and seat.connection.id == event.connection:
            continue
        if seat.buffered is None:
            deliver_to_member(frames, seat)
            continue
        seat.buffered.append(event)
        if len(seat.buffered) > conf.limits.queue_messages:
            seat.connection.close(CloseCode.SLOW_CONSUMER)


def deliver_to_member(frames: RoomFrames, seat: RoomMembership) -> None:
    """To one of them, where his dialect has a word for it."""
    text = frames.text(seat.connection.dialect)
    if text is not None:
        seat.connection.writer.push_event(text)


async def backfill(local: LocalRoom) -> None:
    """Read what was said in a durable room and never arrived, and tell it."""
    while local.position is not None:
        events = await run_in_threadpool(history.read_after, local.key, local.position.seq)
        for event in events:
            position = Position(event.epoch or "", event.seq or 0)
            if local.position.epoch != position.epoch or local.position.seq < position.seq:
                local.position = position
                deliver_to_room(local, event)
        if not events:
            return


def deliver_direct(hub: Hub, event: DirectMessage | Broadcast) -> None:
    """From the server to a user, or to everyone in a project, whatever rooms they are in."""
    frames = RoomFrames(event)
    user = event.user if isinstance(event, DirectMessage) else None
    for connection in list(hub.connections.values()):
        identity = connection.identity
        if identity is None or identity.project != event.project:
            continue
        if user is None or identity.user_key == user:
            text = frames.text(connection.dialect)
            if text is not None:
                connection.writer.push_event(text)
