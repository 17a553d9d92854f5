"""Cursors: a position in a stream as one opaque string.

The same event has the same cursor on every server, so that clients can drop duplicates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s

_CURSOR = re.compile(r"([0-9a-f]{8})\.([0-9a-f]{1,16})\.(0|[1-9][0-9]{0,18})", re.ASCII)


class InvalidCursor(ValueError):
    """The text is not a cursor of this stream."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a stream: the holder knows every event of ``epoch`` up to number ``seq``."""

    epoch: str
    seq: int


def encode(stream: str, epoch: str, seq: int) -> str:
    """Return the cursor of a position. ``stream`` is the name of the collection."""
    return f"{_digest(stream)}.{epoch}.{seq}"


def decode(stream: str, cursor: str) -> Position:
    """Return the position that a client's cursor names. Raises `InvalidCursor`."""
    match = _CURSOR.fullmatch(cursor)
    if match is None or match[1] != _digest(stream):
        raise InvalidCursor(cursor)
    return Position(match[2], int(match[3]))


@lru_cache(maxsize=1024)
def _digest(stream: str) -> str:
    return blake2s(stream.encode(), digest_size=4).hexdigest()
