"""Deletion of old events from the log, and new epochs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.db.models import F
from django.utils import timezone

from ..declarations.dependency_table import is_hidden
from ..models import LogEvent, Stream, new_epoch
from ..utils.transactions import write_transaction
from .reader import streams_with_unsequenced
from .sequencer import sequence

CHUNK_SIZE = 5000  # events deleted in one transaction


def trim(
    using: str,
    *,
    max_age: float | None,
    max_events: int | None,
) -> dict[str, int]:
    """Delete events older than ``max_age`` seconds, and all but the last ``max_events``.

    Returns the number of deleted events by collection. Events without a number are numbered first
    (a stream may have many if no process follows it), since clients notice by the numbers that
    events are missing.
    """
    for name in streams_with_unsequenced(using):
        while sequence(using, name).more:
            pass
    deleted: dict[str, int] = {}
    for stream in Stream.objects.using(using).order_by("collection"):
        # read once, since it looks at every event that is too old
        floor = _new_floor(using, stream, max_age, max_events)
        if floor <= stream.floor:
            continue  # without taking the lock, which would delay processes that number events
        while (count := _trim_chunk(using, stream.collection, floor)) > 0:
            deleted[stream.collection] = deleted.get(stream.collection, 0) + count
    return deleted


def _new_floor(using: str, stream: Stream, max_age: float | None, max_events: int | None) -> int:
    """Return the number up to which events may be deleted."""
    floor = stream.floor
    if max_events is not None:
        floor = max(floor, stream.head - max_events)
    if max_age is not None:
        oldest = timezone.now() - timedelta(seconds=max_age)
        # events are not in the order of their times, so keep all from the first recent one on
        events = LogEvent.objects.using(using).filter(collection=stream.collection)
        recent = events.filter(seq__gt=stream.floor, created_at__gte=oldest)
        first = recent.order_by("seq").values_list("seq", flat=True).first()
        floor = max(floor, stream.head if first is None else first - 1)
    return floor


def _trim_chunk(using: str, name: str, floor: int) -> int:
    """Delete up to `CHUNK_SIZE` events of a stream up to ``floor``, and return how many."""
    with write_transaction(using):
        stream = Stream.objects.using(using).select_for_update().get(collection=name)
        floor = min(floor, stream.floor + CHUNK_SIZE)
        if floor <= stream.floor:
            return 0
        LogEvent.objects.using(using).filter(collection=name, seq__lte=floor).delete()
        count = floor - stream.floor
        Stream.objects.using(using).filter(pk=stream.pk).update(floor=floor)
    return count


def rotate_epoch(
    using: str, collections: Iterable[str] | None = None, *, epoch: str | None = None
) -> list[str]:
    """Give streams a new epoch, so that no client resumes from a cursor of the old one.

    Needed after a backup was restored, since its next events get numbers that other events had
    before, and if a change cannot be reported. ``epoch`` limits it to streams that still have this
    one. Returns the names of the streams.
    """
    rotated = []
    with write_transaction(using):
        # without a column that `migrate` may not have added yet when it reinstalls triggers
        streams = Stream.objects.using(using).defer("derived").order_by("collection")
        streams = streams.select_for_update()
        if collections is not None:
            streams = streams.filter(collection__in=list(collections))
        if epoch is not None:
            streams = streams.filter(epoch=epoch)
        for stream in streams:
            stream.epoch = new_epoch()
            stream.floor = stream.head
            stream.save(update_fields=["epoch", "floor"])
            if is_hidden(stream.collection):  # clients may show values that have changed since
                derived = Stream.objects.using(using).filter(pk=stream.pk, derived__isnull=False)
                derived.update(derived=F("floor") - 1)
            LogEvent.objects.using(using).filter(
                collection=stream.collection, seq__lte=stream.head
            ).delete()
            rotated.append(stream.collection)
    return rotated
