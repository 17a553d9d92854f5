"""Calls of the function that numbers and reads events on PostgreSQL, and their results.

A migration installs the function. One call looks for events without a number in several streams,
numbers them, and returns the events after the position of each reader, as one JSON text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from ..models import LogEvent, Stream
from .cursor import Position
from .decoding import Row
from .statements import Fetch, array_text

# events of a stream that one call returns
PAGE_EVENTS = 1000
# bytes of images of a stream after which a call returns no more events
PAGE_BYTES = 512 * 1024
# events that one call numbers, if more than `PAGE_EVENTS` have no number
BACKLOG_EVENTS = 10_000

NAME = "cocobase_realtime_follow"
_SIGNATURE = f"{NAME}(text[], text[], bigint[], text[], integer, integer, integer)"
# returns the schema of the function, quoted if necessary; nothing if it cannot be called
_FIND = (
    "SELECT quote_ident(n.nspname) FROM pg_catalog.pg_proc p "
    "JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace "
    "WHERE p.oid = to_regprocedure($1) AND has_function_privilege(p.oid, 'EXECUTE')"
)

# [seq, id, [transaction, op, document id], before, after, changed, document, time, related_seq]
_Event = tuple[
    int,
    int,
    tuple[str, str, str],
    msgspec.Raw,
    msgspec.Raw,
    msgspec.Raw,
    msgspec.Raw,
    str,
    int | None,
]
# [stream, epoch, floor, head before the call, head, whether to call again, events]
_Stream = tuple[str, str, int, int, int, bool, list[_Event]]
_decode = msgspec.json.Decoder(list[_Stream]).decode


@dataclass(frozen=True, slots=True)
class StreamRows:
    """The range of a stream, and rows of events after a position."""

    epoch: str
    # number of the last event that was deleted
    floor: int
    # number of the last event before the call
    start: int
    # number of the last event
    head: int
    # whether there may be more events without a number
    unfinished: bool
    # the events, in order of their numbers, with the columns ``FIELDS``
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Statements:
    """Statements for the log in one schema of a database."""

    # name of the schema, quoted if necessary
    schema: str
    # calls the function
    follow: str
    # returns the streams that are not at given positions, or have events without a number
    find_behind: str


async def find_function(fetch: Fetch) -> Statements | None:
    """Return the statements; None if the function is not installed, or must not be called."""
    rows = await fetch(_FIND, [_SIGNATURE])
    if not rows:
        return None
    schema = rows[0][0]
    limits = f"{PAGE_EVENTS}, {PAGE_BYTES}, {BACKLOG_EVENTS}"
    arrays = "$1::text[], $2::text[], $3::bigint[], $4::text[]"
    follow = f"SELECT {schema}.{NAME}({arrays}, {limits})"
    find_behind = (
        "SELECT f.name FROM unnest($1::text[], $2::text[], $3::bigint[]) f(name, epoch, seq) "  # noqa: S608 - our tables
        f"LEFT JOIN {schema}.{Stream._meta.db_table} s ON s.collection = f.name "
        # the range and the order are those of the index of events without a number, and of no
        # other one (see `sequencer.unsequenced`)
        "WHERE (s.epoch, s.head) <> (f.epoch, f.seq) OR ("
        f"SELECT id FROM {schema}.{LogEvent._meta.db_table} "
        "WHERE collection >= f.name AND collection <= f.name AND seq IS NULL "
        "ORDER BY collection, id LIMIT 1) IS NOT NULL"
    )
    return Statements(schema, follow, find_behind)


def follow_parameters(requests: Sequence[tuple[str, Position | None, str | None]]) -> list[str]:
    """Return the parameters of the function for streams, positions and hidden streams.

    No events are returned to a reader without a position. The hidden stream is the result of
    `sequencer.related_stream`.
    """
    positions = [(name, position) for name, position, _ in requests]
    return [*parameters(positions), array_text(related for _, _, related in requests)]


def parameters(requests: Sequence[tuple[str, Position | None]]) -> list[str]:
    """Return the parameters of a statement for streams and the positions of their readers."""
    return [
        array_text(name for name, _ in requests),
        array_text(None if position is None else position.epoch for _, position in requests),
        array_text(None if position is None else position.seq for _, position in requests),
    ]


def decode_result(text: bytes | None) -> dict[str, StreamRows]:
    """Return the result of a call by stream. Streams that do not exist are left out.

    Raises ``ValueError`` or ``RecursionError`` if an image in the log is not JSON.
    """
    return {
        name: StreamRows(
            epoch, floor, start, head, unfinished, [_row(name, event) for event in events]
        )
        for name, epoch, floor, start, head, unfinished, events in (
            [] if text is None else _decode(text)
        )
    }


def _row(name: str, event: _Event) -> Row:
    seq, id, (transaction, op, document_id), before, after, changed, document, at, related_seq = (
        event
    )
    texts = (_text(before), _text(after), _text(changed), _text(document))
    created_at = datetime.fromisoformat(at)
    # the function is not called for streams with values of related fields
    return (id, seq, transaction, name, op, document_id, *texts, None, created_at, related_seq)


def _text(value: msgspec.Raw) -> str | None:
    text = bytes(value)
    return None if text == b"null" else text.decode()
