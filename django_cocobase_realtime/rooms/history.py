"""The history of rooms: the last broadcasts of each room that keeps them.

Broadcasts are numbered without gaps, before they are sent. A process that has received the number
*n* and then receives *n* + 2 has missed one, and reads it from the history.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from django.db import OperationalError

from ..events import Broadcast, decode, encode
from ..log.cursor import Position
from ..log.cursor import encode as encode_cursor
from ..log.reader import StreamRange
from ..log.resume import Resync, resume_position
from ..models import RoomMessage, RoomStream
from ..presence.base import RoomKey, chunks_by_project
from ..utils.transactions import database_for, write_transaction

MAX_ATTEMPTS = 50  # to create and lock the row of a stream
PAGE_SIZE = 100  # broadcasts that are read at a time
MAX_BYTES = 4 * 1024 * 1024  # of the broadcasts that are sent to a client that joins
CHUNK_SIZE = 400  # rooms in one statement


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """The part of a room's history that a client gets when it joins."""

    # position of the last broadcast in the room
    position: Position
    # broadcasts to send to the client, in order
    events: list[Broadcast] = field(default_factory=list)
    # why the client cannot resume from its cursor; None if it can, or has sent none
    resync: str | None = None


def cursor_of(event: Broadcast) -> str | None:
    """Return the cursor of a broadcast, or None if it is not kept."""
    if event.epoch is None or event.seq is None:
        return None
    return cursor((event.project, event.room), Position(event.epoch, event.seq))


def cursor(key: RoomKey, position: Position) -> str:
    """Return the cursor for a position in the history of a room."""
    return encode_cursor(_stream(key), position.epoch, position.seq)


def _stream(key: RoomKey) -> str:
    """Return the name of a room's stream, which is unique among all projects."""
    return f"room {len(key[0])}:{key[0]}{key[1]}"


def append(event: Broadcast, kept: int) -> Broadcast:
    """Store a broadcast and return it with its number; keep the last ``kept`` of its room."""
    using = database_for(RoomStream)
    with write_transaction(using):
        stream = _lock(using, (event.project, event.room))
        seq = stream.head + 1
        event = msgspec.structs.replace(event, epoch=stream.epoch, seq=seq)
        RoomStream.objects.using(using).filter(pk=stream.pk).update(head=seq)
        messages = RoomMessage.objects.using(using)
        messages.create(stream=stream, seq=seq, event=encode(event).decode())
        messages.filter(stream=stream, seq__lte=seq - kept).delete()
    return event


def _lock(using: str, key: RoomKey) -> RoomStream:
    """Lock the row of a room's stream, after creating it if necessary, and return it."""
    project, name = key
    streams = RoomStream.objects.using(using)
    for _ in range(MAX_ATTEMPTS):
        stream = streams.select_for_update().filter(project=project, name=name).first()
        if stream is not None:
            return stream
        streams.bulk_create([RoomStream(project=project, name=name)], ignore_conflicts=True)
    raise OperationalError("The stream of a room was deleted repeatedly by other processes.")


def read_history(key: RoomKey, last: int, since: str | None, kept: int) -> HistoryPage:
    """Return all broadcasts after the cursor ``since``, or else the ``last`` broadcasts.

    If the client cannot resume from ``since``, it gets the last broadcasts and the reason.
    ``kept`` is the number of broadcasts that the room keeps.
    """
    using = database_for(RoomStream)
    stream = RoomStream.objects.using(using).filter(project=key[0], name=key[1]).first()
    if stream is None:
        # the room never had a broadcast; create its stream, so that there is a position
        with write_transaction(using):
            stream = _lock(using, key)
    position = Position(stream.epoch, stream.head)
    reason = None
    if since is not None:
        after, reason = _resume(key, since, position, kept)
        if reason is None:
            events, complete = _read(using, stream, after, stream.head)
            if len(events) == stream.head - after:
                return HistoryPage(position, events)
            # the room kept fewer broadcasts for a while, or there are more than MAX_BYTES
            reason = "retention" if complete else "replay_limit"
    if last <= 0:
        return HistoryPage(position, resync=reason)
    events, _ = _read(using, stream, stream.head - last, stream.head)
    return HistoryPage(position, events, reason)


def _resume(key: RoomKey, since: str, head: Position, kept: int) -> tuple[int, str | None]:
    """Return the number after which a client resumes, or the reason why it cannot."""
    available = StreamRange(head.epoch, head.seq, max(head.seq - kept, 0))
    try:
        return resume_position(_stream(key), since, available).seq, None
    except Resync as resync:
        return 0, resync.reason


def _read(using: str, stream: RoomStream, after: int, upto: int) -> tuple[list[Broadcast], bool]:
    """Return the kept broadcasts with numbers above ``after`` and up to ``upto``, in order.

    Also returns whether these are all; of more than `MAX_BYTES`, only the newest are returned.
    """
    messages = RoomMessage.objects.using(using).filter(stream=stream, seq__gt=after)
    newest = messages.order_by("-seq").values_list("seq", "event")
    events: list[Broadcast] = []
    size = 0
    while upto > after:
        rows = list(newest.filter(seq__lte=upto)[:PAGE_SIZE])
        for seq, text in rows:
            size += len(text)
            if events and size > MAX_BYTES:
                return events[::-1], False
            events.append(_event(text))
            upto = seq - 1
        if len(rows) < PAGE_SIZE:
            break
    return events[::-1], True


def _event(text: str) -> Broadcast:
    event = decode(text.encode())
    assert isinstance(event, Broadcast)
    return event


def read_after(key: RoomKey, after: int) -> list[Broadcast]:
    """Return up to `PAGE_SIZE` kept broadcasts with numbers above ``after``, in order."""
    messages = RoomMessage.objects.using(database_for(RoomStream)).filter(
        stream__project=key[0], stream__name=key[1], seq__gt=after
    )
    texts = messages.order_by("seq").values_list("event", flat=True)[:PAGE_SIZE]
    return [_event(text) for text in texts]


def heads(keys: Iterable[RoomKey]) -> dict[RoomKey, Position]:
    """Return the position of the last broadcast in each room that has kept one."""
    streams = RoomStream.objects.using(database_for(RoomStream))
    positions: dict[RoomKey, Position] = {}
    for project, names in chunks_by_project(keys, CHUNK_SIZE):
        part = streams.filter(project=project, name__in=names)
        for name, epoch, head in part.values_list("name", "epoch", "head"):
            positions[project, name] = Position(epoch, head)
    return positions
