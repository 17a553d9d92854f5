"""Trimming: old events go, and the floor moves with them in the same transaction."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.utils import timezone

from ..utils.transactions import write_transaction
from .models import LogEvent, Stream, new_epoch
from .reader import streams_with_unsequenced
from .sequencer import sequence

CHUNK_SIZE = 5000  # events deleted in one transaction


def trim(
    using: str,
    *,
    max_age: float | None,
    max_events: int | None,
) -> dict[str, int]:
    """Drop events older than ``max_age`` seconds or beyond the last ``max_events``.

    Returns how many went, by collection. What nobody follows has no numbers yet and is given them
    first: only by a number can a client tell that it missed something.
    """
    for name in streams_with_unsequenced(using):
        while sequence(using, name).more:
            pass
    dropped: dict[str, int] = {}
    for stream in Stream.objects.using(using).order_by("collection"):
        if _bound(using, stream, max_age, max_events) <= stream.floor:
            continue  # without the lock, for which servers that number would wait
        while (count := _trim_chunk(using, stream.collection, max_age, max_events)) > 0:
            dropped[stream.collection] = dropped.get(stream.collection, 0) + count
    return dropped


def _bound(using: str, stream: Stream, max_age: float | None, max_events: int | None) -> int:
    """The number up to which events may go."""
    bound = stream.floor
    if max_events is not None:
        bound = max(bound, stream.head - max_events)
    if max_age is not None:
        oldest = timezone.now() - timedelta(seconds=max_age)
        # numbers follow commits, not clocks: up to the first event that is young enough
        events = LogEvent.objects.using(using).filter(collection=stream.collection)
        young = events.filter(seq__gt=stream.floor, created_at__gte=oldest)
        first = young.order_by("seq").values_list("seq", flat=True).first()
        bound = max(bound, stream.head if first is None else first - 1)
    return bound


def _trim_chunk(using: str, name: str, max_age: float | None, max_events: int | None) -> int:
    with write_transaction(using):
        stream = Stream.objects.using(using).select_for_update().get(collection=name)
        floor = min(_bound(using, stream, max_age, max_events), stream.floor + CHUNK_SIZE)
        if floor <= stream.floor:
            return 0
        LogEvent.objects.using(using).filter(collection=name, seq__lte=floor).delete()
        count = floor - stream.floor
        Stream.objects.using(using).filter(pk=stream.pk).update(floor=floor)
    return count


def rotate_epoch(using: str, collections: Iterable[str] | None = None) -> list[str]:
    """Give streams a new epoch, so that every cursor made before asks for a resync.

    For a restored backup, whose numbers would name other events. Returns the streams' names.
    """
    rotated = []
    with write_transaction(using):
        streams = Stream.objects.using(using).select_for_update().order_by("collection")
        if collections is not None:
            streams = streams.filter(collection__in=list(collections))
        for stream in streams:
            stream.epoch = new_epoch()
            stream.floor = stream.head
            stream.save(update_fields=["epoch", "floor"])
            LogEvent.objects.using(using).filter(
                collection=stream.collection, seq__lte=stream.head
            ).delete()
            rotated.append(stream.collection)
    return rotated
