"""Encoding of positions in a stream as cursors, which are strings that clients store.

An event has the same cursor on every server, so that clients can recognize duplicates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s

# a hash of the stream's name, the epoch, and the sequence number
_CURSOR = re.compile(r"([0-9a-f]{8})\.([0-9a-f]{1,16})\.(0|[1-9][0-9]{0,18})", re.ASCII)


class InvalidCursor(ValueError):
    """A text is not a cursor of this stream."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a stream: all events of ``epoch`` up to the number ``seq`` are known."""

    epoch: str
    seq: int


def encode(stream: str, epoch: str, seq: int) -> str:
    """Return the cursor for a position in a stream. A collection's stream has its name."""
    return f"{_digest(stream)}.{epoch}.{seq}"


def decode(stream: str, cursor: str) -> Position:
    """Return the position in a cursor.

    Raises `InvalidCursor` if it is malformed, or a cursor of another stream.
    """
    match = _CURSOR.fullmatch(cursor)
    if match is None or match[1] != _digest(stream):
        raise InvalidCursor(cursor)
    return Position(match[2], int(match[3]))


@lru_cache(maxsize=1024)
def _digest(stream: str) -> str:
    return blake2s(stream.encode(), digest_size=4).hexdigest()
