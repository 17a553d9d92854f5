"""Encoding of places in an order as cursors of pages, which are strings that clients send back.

A cursor holds the values that the last row of a page is sorted by, which the client may not be
allowed to read. So it is encrypted, and authenticated, with the secret key.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2s
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.utils.encoding import force_bytes

from ..filters.order import Order
from ..utils.json_text import decode_json, encode_json

# of the values; more would not fit into a request
MAX_BYTES = 16 * 1024


class InvalidPageCursor(ValueError):
    """A text is not a cursor of a page in this order."""


def encode(stream: str, order: Order, values: Sequence[Any]) -> str:
    """Return the cursor of the page that follows a row.

    ``values`` are those of the row in `RowOrder.values`. If they are too long for requests, the
    result is an empty text, which is no cursor.
    """
    content = encode_json([stream, str(order), values])
    if len(content) > MAX_BYTES:
        return ""
    return _fernet().encrypt(content).decode()


def decode(stream: str, order: Order, text: str) -> tuple[Any, ...]:
    """Return the values in a cursor.

    Raises `InvalidPageCursor` if it is one of another stream or order, or not made by `encode`
    with this secret key or one of its fallbacks.
    """
    try:
        content = decode_json(_fernet().decrypt(text.encode()))
    except (InvalidToken, ValueError):
        raise InvalidPageCursor("This is not a cursor of a page.") from None
    if content[:2] != [stream, str(order)]:
        raise InvalidPageCursor("This is a cursor of another order.")
    return tuple(content[2])


def _fernet() -> MultiFernet:
    return _fernet_of((settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@lru_cache(maxsize=4)
def _fernet_of(secrets: tuple[str | bytes, ...]) -> MultiFernet:
    """Return what encrypts with the first secret, and decrypts with all."""
    keys = [
        # the secret as a message, since it may be longer than a key
        blake2s(force_bytes(secret), digest_size=32, person=b"page").digest()
        for secret in secrets
    ]
    return MultiFernet([Fernet(urlsafe_b64encode(key)) for key in keys])
