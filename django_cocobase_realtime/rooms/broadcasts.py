"""Delivery of broadcasts to the connections of this process."""

from __future__ import annotations

from ..events import Broadcast
from ..log.cursor import Position
from ..transport.waiting_frames import size_of
from ..utils.concurrency import run_in_threadpool
from . import history
from .history import HistoryPage, decode_broadcast
from .local_room import LocalRoom, RoomMembership
from .room_frames import RoomFrames


def deliver_to_room(room: LocalRoom, event: Broadcast) -> None:
    """Deliver a broadcast to the connections in a room; buffer it for those that get a replay."""
    frames = RoomFrames(event, title=room.title)
    for membership in list(room.memberships.values()):
        connection = membership.connection
        if not event.echo and connection.id == event.connection:
            continue
        text = frames.text(connection.dialect)
        if text is None:  # its dialect has no frame for a broadcast
            continue
        if membership.buffered is None:
            membership.push_event(text)
        else:
            membership.buffered.append(text, event.seq)


async def replay(room: LocalRoom, membership: RoomMembership, page: HistoryPage) -> bool:
    """Send the history to a connection that has joined, page by page.

    Returns False if the room has deleted broadcasts that the connection must get.
    """
    connection, seq, kept = membership.connection, page.after, page.first
    writer = connection.writer
    while True:
        with writer.holding(size_of(event for _, event in kept)):
            for number, event in kept:
                await writer.wait_drained()
                await membership.wait_resumed()
                if not room.has(membership):
                    return True
                if number != seq + 1 and page.is_resumed:
                    return False
                frames = RoomFrames(decode_broadcast(event), title=room.title, replayed=True)
                text = frames.text(connection.dialect)
                if text is not None:
                    writer.push(text)
                seq = number
        if seq >= page.position.seq:
            return True
        await writer.wait_drained()
        kept = await run_in_threadpool(history.read_page, room.key, seq, page.position.seq)
        if not kept:
            return not page.is_resumed


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
