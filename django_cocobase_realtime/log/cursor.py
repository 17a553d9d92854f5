"""Cursors: a position in a stream as one opaque word.

The same event has the same cursor on every server, so that clients can drop duplicates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s

_SHAPE = re.compile(r"([0-9a-f]{8})\.([0-9a-f]{1,16})\.(0|[1-9][0-9]{0,18})", re.ASCII)


class InvalidCursor(ValueError):
    """Garbage, or a cursor of another collection."""


@dataclass(frozen=True, slots=True)
class Position:
    """``seq`` of ``epoch``: every event up to it is known."""

    epoch: str
    seq: int


def encode(collection: str, epoch: str, seq: int) -> str:
    """A position as clients hold it."""
    return f"{_digest(collection)}.{epoch}.{seq}"


def decode(collection: str, cursor: str) -> Position:
    """A position from a client. Raises `InvalidCursor`."""
    found = _SHAPE.fullmatch(cursor)
    if found is None or found[1] != _digest(collection):
        raise InvalidCursor(cursor)
    return Position(found[2], int(found[3]))


@lru_cache(maxsize=1024)
def _digest(collection: str) -> str:
    return blake2s(collection.encode(), digest_size=4).hexdigest()
