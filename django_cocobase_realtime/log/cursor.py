"""Encoding of positions in a stream as cursors, which are strings that clients store.

An event has the same cursor on every server, so that clients can recognize duplicates. Cursors are
authenticated with the secret key: a client can continue only from positions that a server has
named, and not from one before it was allowed to see anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s, sha256

from django.conf import settings
from django.utils.crypto import constant_time_compare
from django.utils.encoding import force_bytes

# Bytes of the authentication code. Requests are limited to a few per second, so guessing one would
# take far longer than positions are kept
_CODE_BYTES = 6
# the authentication code, the epoch, and the sequence number
_CURSOR = re.compile(r"([0-9a-f]{12})\.([0-9a-f]{1,16})\.(0|[1-9][0-9]{0,18})", re.ASCII)


class InvalidCursor(ValueError):
    """A text is not a cursor of this stream."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a stream: all events of ``epoch`` up to the number ``seq`` are known."""

    epoch: str
    seq: int


def encode(stream: str, epoch: str, seq: int) -> str:
    """Return the cursor for a position in a stream. A collection's stream has its name."""
    return f"{_code(stream, epoch, seq)}.{epoch}.{seq}"


def decode(stream: str, cursor: str) -> Position:
    """Return the position in a cursor.

    Raises `InvalidCursor` if it is malformed, a cursor of another stream, or not made by `encode`
    with the same secret key.
    """
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidCursor(cursor)
    code, epoch, seq = match[1], match[2], int(match[3])
    if not constant_time_compare(code, _code(stream, epoch, seq)):
        raise InvalidCursor(cursor)
    return Position(epoch, seq)


def _code(stream: str, epoch: str, seq: int) -> str:
    """Return the authentication code of a position."""
    key = _key(settings.SECRET_KEY)
    position = f"{epoch}.{seq}.{stream}".encode()
    return blake2s(position, digest_size=_CODE_BYTES, key=key, person=b"cursor").hexdigest()


@lru_cache(maxsize=4)
def _key(secret: str | bytes) -> bytes:
    return sha256(force_bytes(secret)).digest()
