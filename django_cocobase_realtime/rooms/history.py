"""The history of rooms: the last broadcasts of each room that keeps them.

Broadcasts are numbered without gaps, before they are sent. A process that has received the number
*n* and then receives *n* + 2 has missed one, and reads it from the history.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from django.db import OperationalError
from django.db.models import QuerySet
from django.db.models.functions import Length

from ..events import Broadcast, decode, encode
from ..log.cursor import Position
from ..log.cursor import encode as encode_cursor
from ..log.reader import StreamRange
from ..log.resume import Resync, resume_position
from ..models import RoomMessage, RoomStream
from ..presence.base import RoomKey, chunks_by_project
from ..utils.transactions import database_for, write_transaction

MAX_ATTEMPTS = 50  # to create and lock the row of a stream
PAGE_SIZE = 100  # broadcasts that `read_after` reads at a time
MAX_BYTES = 4 * 1024 * 1024  # of the broadcasts that are sent to a client that joins
PAGE_BYTES = 256 * 1024  # of the broadcasts in a `HistoryPage`, unless there is a single one
MAX_LENGTHS = 1000  # broadcasts whose lengths are read at a time
CHUNK_SIZE = 400  # rooms in one statement


# number of a broadcast, and the event as JSON
KeptBroadcast = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """The part of a room's history that a client gets when it joins."""

    # position of the last broadcast in the room
    position: Position
    # the client gets the broadcasts with numbers above this one, up to `position`
    after: int
    # the first of them, in order; the others are read when the client has read these
    first: list[KeptBroadcast] = field(default_factory=list)
    # whether the client must get all of them, because it was promised
    is_resumed: bool = False
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
    position, messages = Position(stream.epoch, stream.head), _messages(key)
    reason = None
    if since is not None:
        after, reason = _resume(key, since, position, kept)
        if reason is None:
            start, complete = _find_start(messages, after, stream.head)
            first = _read_page(messages, start, stream.head)
            if start == after and (first[0][0] if first else stream.head) in (after, after + 1):
                return HistoryPage(position, after, first, is_resumed=True)
            # the room kept fewer broadcasts for a while, or there are more than MAX_BYTES
            reason = "retention" if complete else "replay_limit"
    if last <= 0:
        return HistoryPage(position, stream.head, resync=reason)
    start, _ = _find_start(messages, max(stream.head - last, 0), stream.head)
    return HistoryPage(position, start, _read_page(messages, start, stream.head), resync=reason)


def _resume(key: RoomKey, since: str, head: Position, kept: int) -> tuple[int, str | None]:
    """Return the number after which a client resumes, or the reason why it cannot."""
    available = StreamRange(head.epoch, head.seq, max(head.seq - kept, 0))
    try:
        return resume_position(_stream(key), since, available).seq, None
    except Resync as resync:
        return 0, resync.reason


def _messages(key: RoomKey) -> QuerySet[RoomMessage]:
    return RoomMessage.objects.using(database_for(RoomStream)).filter(
        stream__project=key[0], stream__name=key[1]
    )


def _find_start(messages: QuerySet[RoomMessage], after: int, upto: int) -> tuple[int, bool]:
    """Return the number after which the newest broadcasts without a gap have `MAX_BYTES` at most.

    It is ``after`` if all of them are kept and have not more bytes. Also returns whether they have
    not more bytes.
    """
    start, size = upto, 0
    newest = messages.order_by("-seq").values_list("seq", Length("event"))
    while start > after:
        rows = list(newest.filter(seq__gt=after, seq__lte=start)[:MAX_LENGTHS])
        for seq, length in rows:
            size += length
            if seq != start:
                return start, True
            if size > MAX_BYTES and start != upto:
                return start, False
            start = seq - 1
        if not rows:
            break
    return start, True


def read_page(key: RoomKey, after: int, upto: int) -> list[KeptBroadcast]:
    """Return the first kept broadcasts with numbers above ``after`` and up to ``upto``.

    They have `PAGE_BYTES` at most, unless there is a single one.
    """
    return _read_page(_messages(key), after, upto)


def _read_page(messages: QuerySet[RoomMessage], after: int, upto: int) -> list[KeptBroadcast]:
    if after >= upto:
        return []
    wanted = messages.filter(seq__gt=after, seq__lte=upto).order_by("seq")
    last, size = after, 0
    for seq, length in wanted.values_list("seq", Length("event"))[:MAX_LENGTHS]:
        size += length
        if size > PAGE_BYTES and last != after:
            break
        last = seq
    rows = wanted.filter(seq__lte=last).values_list("seq", "event")
    return [(seq, text.encode()) for seq, text in rows]


def decode_broadcast(kept: bytes) -> Broadcast:
    """Return a broadcast from its JSON."""
    event = decode(kept)
    assert isinstance(event, Broadcast)
    return event


def read_after(key: RoomKey, after: int) -> list[Broadcast]:
    """Return up to `PAGE_SIZE` kept broadcasts with numbers above ``after``, in order."""
    messages = _messages(key).filter(seq__gt=after)
    texts = messages.order_by("seq").values_list("event", flat=True)[:PAGE_SIZE]
    return [decode_broadcast(text.encode()) for text in texts]


def heads(keys: Iterable[RoomKey]) -> dict[RoomKey, Position]:
    """Return the position of the last broadcast in each room that has kept one."""
    streams = RoomStream.objects.using(database_for(RoomStream))
    positions: dict[RoomKey, Position] = {}
    for project, names in chunks_by_project(keys, CHUNK_SIZE):
        part = streams.filter(project=project, name__in=names)
        for name, epoch, head in part.values_list("name", "epoch", "head"):
            positions[project, name] = Position(epoch, head)
    return positions
