"""What was said: rooms that keep broadcasts number them and keep the last so many.

Numbers are dense and given under the lock of the room's row, before a broadcast is sent: who has
seen *n* and is told *n* + 2 reads what is missing here.
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
from ..log.recovery import Resync, recover
from ..models import RoomMessage, RoomStream
from ..presence.base import RoomKey, chunks_by_project
from ..utils.transactions import database_for, write_transaction

MAX_ATTEMPTS = 50
PAGE_SIZE = 100
MAX_BYTES = 4 * 1024 * 1024  # that somebody who joins is told, beyond the first broadcast
CHUNK_SIZE = 400


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """What a room keeps, as somebody finds it who joins.

    ``position`` is the last number given, ``events`` what was asked for, in order. ``resync`` says
    why the room could not go on from where he was, None where it could or was not asked.
    """

    position: Position
    events: list[Broadcast] = field(default_factory=list)
    resync: str | None = None


def cursor_of(event: Broadcast) -> str | None:
    """The broadcast's place in its room; None where the room does not keep it."""
    if event.epoch is None or event.seq is None:
        return None
    return cursor((event.project, event.room), Position(event.epoch, event.seq))


def cursor(key: RoomKey, position: Position) -> str:
    """A place in a room as clients hold it."""
    return encode_cursor(_stream(key), position.epoch, position.seq)


def _stream(key: RoomKey) -> str:
    return f"room {len(key[0])}:{key[0]}{key[1]}"


def append(event: Broadcast, kept: int) -> Broadcast:
    """Number a broadcast and keep it, and of its room the last ``kept``."""
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
    project, name = key
    streams = RoomStream.objects.using(using)
    for _ in range(MAX_ATTEMPTS):
        found = streams.select_for_update().filter(project=project, name=name).first()
        if found is not None:
            return found
        streams.bulk_create([RoomStream(project=project, name=name)], ignore_conflicts=True)
    raise OperationalError("A room's numbers were taken away all the time.")


def read_history(key: RoomKey, last: int, since: str | None, kept: int) -> HistoryPage:
    """The last so many broadcasts, or, where the room can tell, all of them ``since`` a cursor."""
    using = database_for(RoomStream)
    stream = RoomStream.objects.using(using).filter(project=key[0], name=key[1]).first()
    if stream is None:
        # nothing was ever said: its numbers begin with the first broadcast
        with write_transaction(using):
            stream = _lock(using, key)
    position = Position(stream.epoch, stream.head)
    reason = None
    if since is not None:
        after, reason = _resume(key, since, position, kept)
        if reason is None:
            events, whole = _read(using, stream, after, stream.head)
            if len(events) == stream.head - after:
                return HistoryPage(position, events)
            # it kept less for a while, or has more to tell than is good for anybody
            reason = "retention" if whole else "replay_limit"
    if last <= 0:
        return HistoryPage(position, resync=reason)
    events, _ = _read(using, stream, stream.head - last, stream.head)
    return HistoryPage(position, events, reason)


def _resume(key: RoomKey, since: str, head: Position, kept: int) -> tuple[int, str | None]:
    available = StreamRange(head.epoch, head.seq, max(head.seq - kept, 0))
    try:
        return recover(_stream(key), since, available).seq, None
    except Resync as resync:
        return 0, resync.reason


def _read(using: str, stream: RoomStream, after: int, upto: int) -> tuple[list[Broadcast], bool]:
    """What is kept above ``after``, up to ``upto``, in order; of more than `BYTES` the last.

    And whether that is all of it.
    """
    messages = RoomMessage.objects.using(using).filter(stream=stream, seq__gt=after)
    newest = messages.order_by("-seq").values_list("seq", "event")
    found: list[Broadcast] = []
    size = 0
    while upto > after:
        rows = list(newest.filter(seq__lte=upto)[:PAGE_SIZE])
        for seq, text in rows:
            size += len(text)
            if found and size > MAX_BYTES:
                return found[::-1], False
            found.append(_event(text))
            upto = seq - 1
        if len(rows) < PAGE_SIZE:
            break
    return found[::-1], True


def _event(text: str) -> Broadcast:
    event = decode(text.encode())
    assert isinstance(event, Broadcast)
    return event


def read_after(key: RoomKey, after: int) -> list[Broadcast]:
    """Kept broadcasts above a number, in order, some at a time."""
    messages = RoomMessage.objects.using(database_for(RoomStream)).filter(
        stream__project=key[0], stream__name=key[1], seq__gt=after
    )
    return [_event(t) for t in messages.order_by("seq").values_list("event", flat=True)[:PAGE_SIZE]]


def heads(keys: Iterable[RoomKey]) -> dict[RoomKey, Position]:
    """The last number given in each room."""
    streams = RoomStream.objects.using(database_for(RoomStream))
    found: dict[RoomKey, Position] = {}
    for project, names in chunks_by_project(keys, CHUNK_SIZE):
        part = streams.filter(project=project, name__in=names)
        for name, epoch, head in part.values_list("name", "epoch", "head"):
            found[project, name] = Position(epoch, head)
    return found
