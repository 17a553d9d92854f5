"""The contract of an authenticator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from ..identity import Identity


class Authenticator:
    """Turns a token, or what the handshake carried, into an identity.

    Both methods are synchronous, may use the ORM and run in a worker thread. Subclass it and name
    the class in ``AUTHENTICATORS`` to accept credentials of your own. The credentials of its
    identities begin with ``kind`` and a colon.
    """

    kind: ClassVar[str] = ""

    def authenticate(self, token: str | None, scope: Mapping[str, Any]) -> Identity | None:
        """The identity that ``token`` proves, or None.

        ``token`` is None where the client sent none. ``scope`` is the ASGI scope of the handshake.
        None says "not mine" and "does not hold" alike: the client learns no more.
        """
        return None

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Credentials among ``identities`` that no longer hold (revoked, user gone, logged out).

        Called every ``REVOCATION_POLL`` seconds for all live connections of a process at once:
        answer with one query, not one an identity. ``identities`` are those of this ``kind``. The
        default: none ever dies.
        """
        return set()
