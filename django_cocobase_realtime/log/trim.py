"""Trimming: old events go, and the floor moves with them in the same transaction."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.utils import timezone

from ..database import write_transaction
from .models import LogEvent, Stream, new_epoch

CHUNK = 5000  # events deleted in one transaction


def trim(
    using: str,
    *,
    max_age: float | None,
    max_events: int | None,
    collections: Iterable[str] | None = None,
) -> dict[str, int]:
    """Drop events older than ``max_age`` seconds or beyond the last ``max_events``.

    Returns how many went, by collection. Events without a number yet are never dropped.
    """
    streams = Stream.objects.using(using).order_by("collection")
    if collections is not None:
        streams = streams.filter(collection__in=list(collections))
    dropped: dict[str, int] = {}
    for name in streams.values_list("collection", flat=True):
        while (count := _trim_chunk(using, name, max_age, max_events)) > 0:
            dropped[name] = dropped.get(name, 0) + count
    return dropped


def _trim_chunk(using: str, name: str, max_age: float | None, max_events: int | None) -> int:
    with write_transaction(using):
        stream = Stream.objects.using(using).select_for_update().get(collection=name)
        floor = stream.floor
        if max_events is not None:
            floor = max(floor, stream.head - max_events)
        events = LogEvent.objects.using(using).filter(collection=name)
        if max_age is not None:
            oldest = timezone.now() - timedelta(seconds=max_age)
            # numbers follow commits, not clocks: up to the first event that is young enough
            young = events.filter(seq__gt=stream.floor, created_at__gte=oldest)
            first = young.order_by("seq").values_list("seq", flat=True).first()
            floor = max(floor, stream.head if first is None else first - 1)
        floor = min(floor, stream.floor + CHUNK)
        if floor <= stream.floor:
            return 0
        events.filter(seq__lte=floor).delete()
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
