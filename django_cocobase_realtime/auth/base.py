"""The base class of authenticators."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar, TypeAlias

from ..identity import Identity
from ..types import Scope

# a token, or None, and the ASGI scope of the handshake
Credential: TypeAlias = tuple[str | None, Scope]
# an identity, None, or the exception that `Authenticator.authenticate` would raise
Answer: TypeAlias = Identity | Exception | None


def first(answers: Sequence[Answer]) -> Identity | None:
    """Return the first answer, or raise it if it is an exception."""
    answer = answers[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


class Authenticator:
    """Base class of authenticators, which turn a credential into an identity.

    The credential is a token that the client sent, or comes from the WebSocket handshake, such as
    a session cookie. To accept your own credentials, write a subclass and list it in
    ``AUTHENTICATORS``. All methods are synchronous, may use the ORM, and run in a worker thread.
    """

    # prefix, without the colon, of the credentials of this authenticator's identities
    kind: ClassVar[str] = ""

    def authenticate(self, token: str | None, scope: Scope) -> Identity | None:
        """Return the identity that a token proves, or None.

        ``token`` is None if the client sent none; ``scope`` is the ASGI scope of the handshake.
        Return None if the token is not valid, and also if it is of a kind that this authenticator
        does not know; the next one is then tried.
        """
        return None

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Return the credentials of ``identities`` that are no longer valid.

        Examples are a revoked key, a deleted user and a session that was logged out. Called every
        ``REVOCATION_POLL`` seconds with all open connections' identities of this ``kind``, so use
        one query for all, not one per identity. By default no credential is revoked.
        """
        return set()

    def changed(self, identities: Collection[Identity]) -> set[str]:
        """Return the credentials of ``identities`` that are valid, but now prove other identities.

        An example is a key whose `Identity.scope` was changed. Called like `revoked`. The
        connections are closed with code 4201, and their clients authenticate again. By default no
        credential is changed.
        """
        return set()
