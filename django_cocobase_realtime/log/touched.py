"""The documents of a stream that have events after a position, and what they were before.

A document that has none is now as it was at the position. One that has any was as its first event
has found it: that is the image before the change, or nothing if the change created it. Events
without a number count as well: they were committed after everything that has one.

The log must be read after the rows. Then a change that a query for rows has seen is in the log, and
a change that it has not seen may be, without harm. So neither a transaction nor its isolation level
matters, and one statement on the log is enough for any number of queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from django.db import connections

from ..declarations.collection import Collection
from ..events import Change, Image
from ..models import LogEvent, Stream
from .cursor import Position
from .decoding import changes_from_rows
from .reader import FEW_EVENTS

TOUCHED_LIMIT = 1000  # documents that are undone
TOUCHED_EVENTS = 10_000  # events that are examined for them
TOUCHED_BYTES = 4 * 1024 * 1024  # of their images
KEYS_PER_QUERY = 500  # events that are read by one statement
# `Change.at` of events whose time was not read
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class CannotUndo(Exception):
    """Rows cannot be read as of a position, because it is not known what they were then."""


class TooManyTouched(CannotUndo):
    """Too much has changed since a position; it can be read as of a later one."""


@dataclass(frozen=True, slots=True)
class TouchedDocuments:
    """The documents with events after a position."""

    # the stored image at the position by document id; None if there was no such document
    images: Mapping[str, Image | None] = field(default_factory=dict)

    def __contains__(self, id: str) -> bool:
        return id in self.images

    def __bool__(self) -> bool:
        return bool(self.images)

    def existing(self) -> Iterator[tuple[str, Image]]:
        """Yield the documents that existed at the position, and their stored images."""
        return ((id, image) for id, image in self.images.items() if image is not None)


@dataclass(frozen=True, slots=True)
class _Statements:
    """Statements on the log of one database."""

    # returns the range of a stream, and its first events after a number
    events: str
    # returns the same with the lengths of the images instead of the images
    lengths: str
    # returns events by their ids
    by_id: str


# an event: id, number, kind, document id, images
_Event = tuple[int, int | None, str, str, str | None, str | None]


def read_touched(
    collection: Collection, position: Position, *, ids: Set[str] | None = None
) -> TouchedDocuments:
    """Return the documents of a collection with events after a position; only ``ids`` if given.

    Read the rows first. Raises `TooManyTouched` if there are more than `TOUCHED_LIMIT`, and
    `CannotUndo` if an image before a change is unknown or lacks fields, or if the log does not
    contain all events after the position. Uses the ORM: not for event loops.
    """
    using, stream = collection.database, collection.stream
    statements = _statements(using)
    rows = _read(using, statements.events, stream, position, FEW_EVENTS)
    if len(rows) <= FEW_EVENTS:
        events: Sequence[_Event] = rows
    else:
        events = _read_first_events(using, statements, stream, position, ids)
    if not events:
        return TouchedDocuments()
    decoded = changes_from_rows(
        using,
        [
            (id, seq, "", stream, op, document_id, before, after, None, None, None, _NO_TIME, None)
            for id, seq, op, document_id, before, after in events
        ],
        epoch=position.epoch,
        seqs=[event[1] or 0 for event in events],
    )
    return TouchedDocuments(_first_images(collection, decoded, ids))


def _first_images(
    collection: Collection, changes: Sequence[Change], ids: Set[str] | None
) -> dict[str, Image | None]:
    """Return the image before the first change of each document."""
    images: dict[str, Image | None] = {}
    is_complete = collection.codec.is_complete
    for change in changes:
        # only an image of a trigger was read; without all columns, the id may be another one
        if change.after is not None and not is_complete(change.after):
            raise CannotUndo(change.document_id)
        if change.document_id in images or (ids is not None and change.document_id not in ids):
            continue
        before = change.before
        if change.op != "created" and (before is None or not is_complete(before)):
            raise CannotUndo(change.document_id)
        images[change.document_id] = before
    if len(images) > TOUCHED_LIMIT:
        raise TooManyTouched(f"{len(images)} documents")
    return images


def _read(using: str, sql: str, stream: str, position: Position, limit: int) -> list[Any]:
    """Return the events after a position, in order; more than ``limit`` if there are more.

    Raises `CannotUndo` if the log does not contain all of them.
    """
    count = limit + 1
    with connections[using].cursor() as cursor:
        cursor.execute(sql, [stream, position.seq, count, stream, stream, count, stream])
        rows = cursor.fetchall()
    if not rows:
        raise CannotUndo("There is no such stream.")
    epoch, head, floor = rows[0][:3]
    if epoch != position.epoch or not floor <= position.seq <= head:
        raise CannotUndo("The log does not contain the events after this position.")
    events = [_decoded(row[3:]) for row in rows if row[3] is not None]
    # an event gets its number after all that were committed when the ones before it got theirs
    events.sort(key=lambda event: (event[1] is None, event[1] or 0, event[0]))
    return events


def _read_first_events(
    using: str, statements: _Statements, stream: str, position: Position, ids: Set[str] | None
) -> list[_Event]:
    """Return the first event of each document, if they are many, without reading the others."""
    measured = _read(using, statements.lengths, stream, position, TOUCHED_EVENTS)
    if len(measured) > TOUCHED_EVENTS:
        raise TooManyTouched(f"more than {TOUCHED_EVENTS} events")
    first: dict[str, tuple[int, int]] = {}
    for id, _, document_id, length, is_by_column in measured:
        # a trigger does not know the exact id of the document
        if is_by_column or ids is None or document_id in ids:
            first.setdefault(document_id, (id, length))
    if len(first) > TOUCHED_LIMIT or sum(length for _, length in first.values()) > TOUCHED_BYTES:
        raise TooManyTouched(f"{len(first)} documents")
    places = {id: place for place, (id, _) in enumerate(first.values())}
    wanted, events = list(places), list[_Event]()
    with connections[using].cursor() as cursor:
        for start in range(0, len(wanted), KEYS_PER_QUERY):
            part = wanted[start : start + KEYS_PER_QUERY]
            cursor.execute(statements.by_id.format(", ".join(["%s"] * len(part))), part)
            events += map(_decoded, cursor.fetchall())
    if len(events) < len(wanted):
        raise CannotUndo("Events were deleted from the log.")
    return sorted(events, key=lambda event: places[event[0]])


def _decoded(row: Sequence[Any]) -> Any:
    """Return a row with text for the bytes that SQLite returns (see `LoggedText`)."""
    return tuple(
        str(value, "utf-8", "replace") if isinstance(value, bytes) else value for value in row
    )


@lru_cache(maxsize=16)
def _statements(using: str) -> _Statements:
    connection = connections[using]
    is_sqlite = connection.vendor == "sqlite"
    quote = connection.ops.quote_name
    log, streams = (quote(model._meta.db_table) for model in (LogEvent, Stream))
    before, after = quote("before"), quote("after")
    # triggers write arrays, see `column_images`; the image after a creation has the document's id
    of_trigger = f"substr(coalesce({before}, {after}), 1, 1) = '['"
    after = f"CASE WHEN {before} IS NULL AND {of_trigger} THEN {after} END"
    texts = ["document_id", before, after]
    if is_sqlite:
        texts = [f"CAST({text} AS BLOB)" for text in texts]
    columns = ", ".join(["id", "seq", "op", *texts])
    length = f"length(CAST({before} AS BLOB))" if is_sqlite else f"octet_length({before})"
    lengths = f"id, seq, {texts[0]}, coalesce({length}, 0), CASE WHEN {of_trigger} THEN 1 END"

    def first_events(columns: str, names: str) -> str:
        # those without a number as `sequencer.unsequenced` selects them
        return (
            f"SELECT s.epoch, s.head, s.floor, {names} FROM {streams} s LEFT JOIN ("  # noqa: S608
            f"SELECT * FROM (SELECT {columns} FROM {log} "
            "WHERE collection = %s AND seq > %s ORDER BY seq LIMIT %s) numbered UNION ALL "
            f"SELECT * FROM (SELECT {columns} FROM {log} WHERE collection >= %s "
            "AND collection <= %s AND seq IS NULL ORDER BY collection, id LIMIT %s) waiting"
            ") e ON 1 = 1 WHERE s.collection = %s"
        )

    return _Statements(
        events=first_events(columns, "e.*"),
        lengths=first_events(lengths, "e.*"),
        by_id=f"SELECT {columns} FROM {log} WHERE id IN ({{}})",  # noqa: S608
    )
