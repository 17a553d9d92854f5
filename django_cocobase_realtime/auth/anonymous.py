"""Anonymous visitors, who have no credential and may only read what is declared as public."""

from __future__ import annotations

from typing import ClassVar

from ..identity import DEFAULT_PROJECT, Identity
from ..types import Scope
from .base import Authenticator


class Anonymous(Authenticator):
    """Accepts clients that send no token, if no other authenticator accepts them.

    It is not in the default of ``AUTHENTICATORS``. Wherever it is listed, it is asked last, and
    only if all others have refused: not if one of them could not decide.
    """

    kind = "anonymous"
    # project of the visitors; a subclass may set another one
    project: ClassVar[str] = DEFAULT_PROJECT

    def authenticate(self, token: str | None, scope: Scope) -> Identity | None:
        """Return the identity of all anonymous visitors, or None if there is a token."""
        if token is not None or scope.get("type") == "http":
            return None
        return Identity(credential=f"{self.kind}:", project=self.project, is_anonymous=True)
