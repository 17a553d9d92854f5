"""An identity: who a connection acts for. Plain data, made by an authenticator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

DEFAULT_PROJECT = "default"
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a connection acts for.

    ``credential`` names what vouches for it, stable and never secret (``key:PREFIX``,
    ``jwt:PROJECT:SUBJECT``, ``session:HASH``). ``user`` is a Django user or None; ``user_id``
    has the type of the user's primary key (or is a JWT's subject where no Django user stands
    behind it) and is None for a bare API key. ``expires_at`` is aware and in UTC, None for
    never. ``private`` is the authenticator's own memory, never shown.
    """

    credential: str
    user: Any = None
    user_id: Any = None
    name: str = ""
    project: str = DEFAULT_PROJECT
    claims: Mapping[str, Any] = field(default_factory=lambda: NOTHING, hash=False)
    expires_at: datetime | None = None
    can_publish: bool = False
    private: Mapping[str, str] = field(default_factory=lambda: NOTHING, hash=False, repr=False)

    @property
    def is_authenticated(self) -> bool:
        """True: an identity exists only where a credential held."""
        return True

    @property
    def user_key(self) -> str | None:
        """``user_id`` as it stands on the wire: a string, None for a bare key."""
        return None if self.user_id is None else str(self.user_id)

    def same_subject(self, other: Identity) -> bool:
        """Whether the other credential speaks for the same user (or key) of the same project."""
        if self.project != other.project or self.user_key != other.user_key:
            return False
        return self.user_id is not None or self.credential == other.credential
