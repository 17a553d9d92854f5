"""Delivery of broadcasts to the connections of this process."""

from __future__ import annotations

from ..conf import conf
from ..events import Broadcast
from ..log.cursor import Position
from ..utils.concurrency import run_in_threadpool
from ..wire.codes import CloseCode
from . import history
from .local_room import LocalRoom, RoomMembership
from .room_frames import RoomFrames


def deliver_to_room(room: LocalRoom, event: Broadcast) -> None:
    """Deliver a broadcast to the connections in a room; buffer it for those that get a replay."""
    frames = RoomFrames(event, title=room.title)
    for membership in list(room.memberships.values()):
        if not event.echo and membership.connection.id == event.connection:
            continue
        if membership.buffered is None:
            deliver_to_member(frames, membership)
            continue
        membership.buffered.append(event)
        if len(membership.buffered) > conf.limits.queue_messages:
            membership.connection.close(CloseCode.SLOW_CONSUMER)


def deliver_to_member(frames: RoomFrames, membership: RoomMembership) -> None:
    """Deliver a broadcast to one connection, if its dialect has a frame for it."""
    connection = membership.connection
    text = frames.text(connection.dialect)
    if text is not None:
        connection.writer.push_event(text)


async def backfill(room: LocalRoom) -> None:
    """Read the broadcasts of a durable room that did not arrive here, and deliver them."""
    while room.position is not None:
        events = await run_in_threadpool(history.read_after, room.key, room.position.seq)
        for event in events:
            position = Position(event.epoch or "", event.seq or 0)
            if room.position.epoch != position.epoch or room.position.seq < position.seq:
                room.position = position
                deliver_to_room(room, event)
        if not events:
            return
