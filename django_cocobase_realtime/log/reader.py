"""Queries for streams: their ranges, their events, and what is new since a position."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce, Length

from ..events import Change
from ..models import LogEvent, Stream
from .cursor import Position
from .decoding import FIELDS, Row, changes_from_rows
from .sequencer import has_unsequenced, sequence, unsequenced

PAGE_SIZE = 1000  # events that `fetch_new` reads at a time
FEW_EVENTS = 30  # events that are read without knowing their lengths
ENVELOPE_BYTES = 300  # of an event as it is sent, beside its images


@dataclass(frozen=True, slots=True)
class StreamRange:
    """The events that the log contains of a stream: from ``floor`` + 1 to ``head``."""

    epoch: str
    # number of the last event
    head: int
    # number of the last event that was deleted
    floor: int


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """The result of `fetch_new`: events of a stream after a reader's position."""

    epoch: str
    # number of the last event that was deleted
    floor: int
    # the events after this number were numbered by the call, so other processes do not have them
    start: int
    # number of the last event
    head: int
    # the events after the reader's position, or the first of them
    changes: list[Change]
    # whether there are more events to fetch
    more: bool


def stream_ranges(using: str, collections: Collection[str]) -> dict[str, StreamRange]:
    """Return the ranges of streams, by name. Streams that never had an event are left out."""
    rows = Stream.objects.using(using).filter(collection__in=collections)
    return {
        name: StreamRange(epoch, head, floor)
        for name, epoch, head, floor in rows.values_list("collection", "epoch", "head", "floor")
    }


def streams_with_unsequenced(using: str) -> set[str]:
    """Return the streams with committed events that have no number yet."""
    rows = LogEvent.objects.using(using).filter(seq=None)
    return set(rows.order_by().values_list("collection", flat=True).distinct())


def streams_behind(using: str, positions: Mapping[str, Position]) -> set[str]:
    """Return the streams that are not at these positions, or have events without a number.

    Streams of which no event was ever numbered are left out.
    """
    waiting = unsequenced(using, OuterRef("collection")).values("id")[:1]
    streams = Stream.objects.using(using).filter(collection__in=list(positions))
    rows = streams.values_list("collection", "epoch", "head", Subquery(waiting))
    return {
        name
        for name, epoch, head, first in rows
        if first is not None or Position(epoch, head) != positions[name]
    }


def read_events(
    using: str,
    collection: str,
    epoch: str,
    after: int,
    limit: int,
    *,
    until: int | None = None,
    max_bytes: int | None = None,
) -> list[Change]:
    """Return up to ``limit`` events with numbers above ``after`` and up to ``until``, in order.

    If the first one does not have the number ``after`` + 1, those before it were deleted. With
    ``max_bytes``, reading stops at the event whose images exceed that many bytes in all, but not
    before the first one.
    """
    rows = LogEvent.objects.using(using).filter(collection=collection, seq__gt=after)
    if until is not None:
        rows = rows.filter(seq__lte=until)
        limit = min(limit, until - after)
    events = rows.order_by("seq").values_list(*FIELDS)
    loaded = list(events[:limit]) if max_bytes is None else _read_bounded(events, limit, max_bytes)
    return changes_from_rows(using, loaded, epoch=epoch, seqs=[row[1] for row in loaded])


def _read_bounded(events: QuerySet[LogEvent, Row], limit: int, max_bytes: int) -> list[Row]:
    """Return the first events, without reading many more bytes than those of the result.

    If there are more than a few, their lengths are read before them.
    """
    if limit <= FEW_EVENTS:
        rows = list(events[:limit])
        lengths = [sum(len(text or "") for text in (*row[6:8], *row[9:11])) for row in rows]
        return rows[: _count_fitting(lengths, max_bytes)]
    length = _total_length("before", "after", "document", "related")
    measured = list(events.values_list("seq", length)[:limit])
    if not measured:
        return []
    count = _count_fitting([length for _, length in measured], max_bytes)
    # events that were deleted after the first query leave a gap, which the caller notices
    return list(events.filter(seq__lte=measured[count - 1][0]))


def _count_fitting(lengths: Sequence[int], max_bytes: int) -> int:
    """Return how many of the first events have up to ``max_bytes`` in all; at least one."""
    size = 0
    for count, length in enumerate(lengths):
        size += length + ENVELOPE_BYTES
        if count and size > max_bytes:
            return count
    return len(lengths)


def _total_length(*names: str) -> Any:
    """Return the expression for the length of text columns, of which some may be null."""
    return sum((Coalesce(Length(name), 0) for name in names[1:]), Coalesce(Length(names[0]), 0))


def fetch_new(
    using: str, collection: str, position: Position | None, notified: bool = False
) -> StreamBatch:
    """Number the events of a stream that have no number, and return those after ``position``.

    Without a position, the batch contains no events. With ``notified`` there are known to be
    events without a number, which saves a query.
    """
    # look for events without a number first, so that the head includes all events that were
    # committed before this call
    waiting = notified or has_unsequenced(using, collection)
    stream = None if waiting else stream_ranges(using, [collection]).get(collection)
    more = False
    numbered: list[Change] | None = None
    if stream is None:
        result = sequence(using, collection)
        epoch, floor, start, head = result.epoch, result.floor, result.start, result.head
        more, numbered = result.more, result.changes
    else:
        epoch, floor, start, head = stream.epoch, stream.floor, stream.head, stream.head
    changes: list[Change] = []
    if position is not None and position.epoch == epoch and head > position.seq:
        if numbered is not None and position.seq == start:
            changes = numbered
        else:
            changes = read_events(using, collection, epoch, position.seq, PAGE_SIZE)
            more = more or len(changes) == PAGE_SIZE
    return StreamBatch(epoch, floor, start, head, changes, more)
