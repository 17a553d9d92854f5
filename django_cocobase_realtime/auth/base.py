"""The contract of an authenticator."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from ..identity import Identity
from ..types import Scope


class Authenticator:
    """Turns a token, or what the handshake carried, into an identity.

    To accept credentials of your own, subclass it and name the class in ``AUTHENTICATORS``. Both
    methods are synchronous, may use the ORM, and run in a worker thread.
    """

    # prefix, without the colon, of the credentials of this authenticator's identities
    kind: ClassVar[str] = ""

    def authenticate(self, token: str | None, scope: Scope) -> Identity | None:
        """Return the identity that a token proves, or None.

        ``token`` is None if the client sent none; ``scope`` is the ASGI scope of the handshake.
        Return None both for a token of another kind and for one that is not valid: clients do not
        see the difference.
        """
        return None

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Return the credentials of ``identities`` that are no longer valid.

        For example because the key was revoked, the user deleted, the session logged out. Called
        every ``REVOCATION_POLL`` seconds for all live connections of this ``kind``, so answer
        with one query, not with one per identity. The default revokes nothing.
        """
        return set()
