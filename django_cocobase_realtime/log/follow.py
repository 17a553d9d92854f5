"""What a reader of a stream asks for: number what waits, and give what it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..events import Change
from .cursor import Position
from .reader import read_events, stream_ranges, streams_with_unsequenced
from .sequencer import has_unsequenced, sequence

PAGE_SIZE = 1000  # events read at a time


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """A stream as a reader finds it: ``changes`` above its position, and where it stands.

    Those above ``start`` were numbered just now, by this very call. ``more`` are to be had.
    """

    epoch: str
    floor: int
    start: int
    head: int
    changes: list[Change]
    more: bool


def fetch_new(
    using: str, collection: str, position: Position | None, notified: bool = False
) -> StreamBatch:
    """Go on from ``position``; without one, only tell where the stream stands.

    ``rung``: somebody said that something waits, so there is no need to ask.
    """
    left = False
    fresh: list[Change] | None = None
    # in this order: a head that is read after nothing waited has all that was committed before
    waits = notified or has_unsequenced(using, collection)
    found = None if waits else stream_ranges(using, [collection]).get(collection)
    if found is None:
        numbered = sequence(using, collection)
        epoch, floor, start = numbered.epoch, numbered.floor, numbered.start
        head, left, fresh = numbered.head, numbered.more, numbered.changes
    else:
        epoch, floor, start, head = found.epoch, found.floor, found.head, found.head
    changes: list[Change] = []
    if position is not None and position.epoch == epoch and head > position.seq:
        if fresh is not None and position.seq == start:
            changes = fresh
        else:
            changes = read_events(using, collection, epoch, position.seq, PAGE_SIZE)
            left = left or len(changes) == PAGE_SIZE
    return StreamBatch(epoch, floor, start, head, changes, left)


def streams_behind(using: str, positions: Mapping[str, Position]) -> set[str]:
    """Streams in which something is new: a number, an epoch, or events that wait for one."""
    found = stream_ranges(using, list(positions))
    moved = {
        name
        for name, position in positions.items()
        if name in found and (found[name].epoch, found[name].head) != (position.epoch, position.seq)
    }
    return moved | streams_with_unsequenced(using, list(positions))
