"""Reading of a stream from a position on, without a server process.

Events are numbered by a server process, if there is one. Only if events still have no number at the
next read, this module numbers them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...declarations.collection import Collection
from ...delivery.incomplete_images import is_complete, restore
from ...events import Change
from ...log.cursor import Position, encode
from ...log.reader import PAGE_SIZE, fetch_new, read_events, stream_ranges
from ...log.resume import resume_position
from ...log.sequencer import has_unsequenced


@dataclass(frozen=True, slots=True)
class TailBatch:
    """The events that one read has returned."""

    changes: list[Change] = field(default_factory=list)
    # what a reader must know about events that are missing, or None
    notice: str | None = None
    # whether there are more events to read now
    more: bool = False


class StreamTail:
    """The events of a collection after a position, or from now on. Uses the ORM."""

    def __init__(self, collection: Collection, since: str | None = None) -> None:
        """Start after the cursor ``since``, or after the last event.

        Raises `Resync` if the log does not contain all events after the cursor.
        """
        self._collection = collection
        self._using, self._stream = collection.database, collection.stream
        # whether events had no number at the last read
        self._was_waiting = False
        if since is not None:
            available = stream_ranges(self._using, [self._stream]).get(self._stream)
            self._position = resume_position(self._stream, since, available)
        else:
            batch = fetch_new(self._using, self._stream, None)
            while batch.more:
                batch = fetch_new(self._using, self._stream, None)
            self._position = Position(batch.epoch, batch.head)

    @property
    def cursor(self) -> str:
        """The cursor of the last event that was read."""
        return encode(self._stream, self._position.epoch, self._position.seq)

    def read(self) -> TailBatch:
        """Return the next events, or none."""
        is_waiting = has_unsequenced(self._using, self._stream)
        if is_waiting and self._was_waiting:
            fetch_new(self._using, self._stream, None, notified=True)
        self._was_waiting = is_waiting
        stream = stream_ranges(self._using, [self._stream])[self._stream]
        if stream.epoch != self._position.epoch:
            self._position = Position(stream.epoch, stream.floor)
            return TailBatch(notice="A new epoch has begun: clients load everything again.")
        after, notice = self._position.seq, None
        if after < stream.floor:
            notice = f"{stream.floor - after} events were deleted before they were read."
            after = stream.floor
        changes = read_events(self._using, self._stream, stream.epoch, after, PAGE_SIZE)
        self._position = Position(stream.epoch, (changes[-1].seq or after) if changes else after)
        if not all(is_complete(self._collection, change) for change in changes):
            changes = restore(self._collection, changes)
        return TailBatch(changes, notice, len(changes) == PAGE_SIZE)
