"""Tokens for positions in the list of rooms, which clients send to get the next page.

A client must not choose a position, and must not learn from one. Otherwise it could find out the
names of rooms that it may not join, by asking what comes after guessed names. A token is therefore
encrypted and authenticated with a key that is derived from the secret key, for one identity.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import blake2s, sha256

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.utils.encoding import force_bytes

from ..identity import Identity

# bytes; a position is filled up to a multiple of it, so that its length reveals nothing
BLOCK = 512
MAX_LENGTH = 4096  # characters of a token


class InvalidListToken(ValueError):
    """A text is not a token that was made for the identity with the same secret key."""


def encode(identity: Identity, name: str) -> str:
    """Return the token for the position after a room."""
    position = name.encode(errors="surrogatepass")
    position += b"\0" * (BLOCK - len(position) % BLOCK)
    return _cipher(identity).encrypt(position).decode()


def decode(identity: Identity, token: str) -> str:
    """Return the name of the room after which a page begins. Raises `InvalidListToken`."""
    if len(token) > MAX_LENGTH or not token.isascii():
        raise InvalidListToken
    try:
        position = _cipher(identity).decrypt(token)
    except InvalidToken:
        raise InvalidListToken from None
    return position.rstrip(b"\0").decode(errors="surrogatepass")


def _cipher(identity: Identity) -> Fernet:
    user = identity.user_key
    subject = ("credential", identity.credential) if user is None else ("user", user)
    key = blake2s(
        repr((identity.project, *subject)).encode(errors="surrogatepass"),
        key=sha256(force_bytes(settings.SECRET_KEY)).digest(),
        person=b"rooms",
    )
    return Fernet(urlsafe_b64encode(key.digest()))
