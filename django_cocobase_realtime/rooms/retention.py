"""Deletion of presence and room history that no client needs any more.

All functions use the ORM, so they must not be called in an event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.db.models import OuterRef, Subquery
from django.utils import timezone

from ..conf import conf
from ..declarations.registry import room_registry
from ..models import RoomMessage, RoomStream
from ..presence.base import get_backend
from ..presence.database import DatabasePresence
from ..pubsub.broker import broker
from ..utils.transactions import database_for, write_transaction

CHUNK_SIZE = 400  # streams that are read at a time
DELETED_AT_ONCE = 50  # streams that are deleted in one transaction


def expire_presence() -> None:
    """Remove members whose grace period or lease has ended, and expired idempotency keys.

    Server processes do this more often while clients are in rooms. Here, rows of processes are
    removed that were killed, also from the tables of the backend that the project used before.
    """
    backend = get_backend()
    for change in backend.expire():
        broker.publish(change)
    if not isinstance(backend, DatabasePresence):
        former = DatabasePresence(conf.presence)
        if former.is_supported:
            former.expire()


def trim_history(max_age: float | None) -> int:
    """Delete kept broadcasts that no client can get any more, and the history of unused rooms.

    A room is unused if it has no members, and had no broadcast for ``max_age`` seconds or never.
    Rooms whose declaration keeps no history any more, or less than before, keep what it says.
    Returns the number of histories that were deleted.
    """
    using = database_for(RoomStream)
    messages = RoomMessage.objects.using(using).filter(stream=OuterRef("pk"))
    streams = RoomStream.objects.using(using).order_by("pk")
    streams = streams.annotate(
        newest=Subquery(messages.order_by("-seq").values("created_at")[:1]),
        first=Subquery(messages.order_by("seq").values("seq")[:1]),
    )
    oldest = None if max_age is None else timezone.now() - timedelta(seconds=max_age)
    deleted, last = 0, 0
    while chunk := list(streams.filter(pk__gt=last)[:CHUNK_SIZE]):
        last = chunk[-1].pk
        unused = _find_unused(chunk, oldest)
        for start in range(0, len(unused), DELETED_AT_ONCE):
            deleted += _delete(using, unused[start : start + DELETED_AT_ONCE])
        for stream in chunk:
            floor = stream.head - _kept(stream)
            if stream.first is not None and stream.first <= floor:
                RoomMessage.objects.using(using).filter(stream=stream.pk, seq__lte=floor).delete()
    return deleted


def _kept(stream: RoomStream) -> int:
    """Return how many broadcasts the room's declaration keeps."""
    room = room_registry.find(stream.name)
    return 0 if room is None else room.history_size


def _find_unused(streams: Iterable[RoomStream], oldest: datetime | None) -> list[RoomStream]:
    """Return the streams of rooms that keep no history, or are not used any more."""
    unused, candidates = [], []
    for stream in streams:
        newest = stream.newest  # type: ignore[attr-defined]  # see the annotation
        if not _kept(stream):
            unused.append(stream)
        elif newest is None or (oldest is not None and newest < oldest):
            candidates.append(stream)
    if candidates:
        keys = {(stream.project, stream.name): stream for stream in candidates}
        with_members = get_backend().versions(keys)
        unused += [stream for key, stream in keys.items() if key not in with_members]
    return unused


def _delete(using: str, unused: Sequence[RoomStream]) -> int:
    """Delete streams and their broadcasts, except streams that have a new one; return the number.

    The next broadcast begins a stream with another epoch.
    """
    heads = {stream.pk: stream.head for stream in unused}
    with write_transaction(using):
        locked = RoomStream.objects.using(using).filter(pk__in=heads).order_by("pk")
        pks = [
            pk
            for pk, head in locked.select_for_update().values_list("pk", "head")
            if head == heads[pk]
        ]
        RoomMessage.objects.using(using).filter(stream__in=pks).delete()
        RoomStream.objects.using(using).filter(pk__in=pks).delete()
    return len(pks)
