"""Identities, which authenticators return: the user or app that a connection acts for."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

# project of keys, tokens and rooms for which no other one was named
DEFAULT_PROJECT = "default"
EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Identity:
    """The user or the app (an API key without a user) that a connection acts for."""

    # name of the credential, stable and never secret: ``key:PREFIX``, ``jwt:PROJECT:SUBJECT`` or
    # ``session:HASH``
    credential: str
    # Django user, or None
    user: Any = None
    # primary key of the user, or the subject of a JWT without a Django user; None for an app
    user_id: Any = None
    # displayed name
    name: str = ""
    # namespace of rooms and connections, for example a tenant
    project: str = DEFAULT_PROJECT
    # claims of a JWT; empty for other credentials
    claims: Mapping[str, Any] = field(default_factory=lambda: EMPTY, hash=False)
    # aware, in UTC; None if the credential does not expire
    expires_at: datetime | None = None
    # whether the credential may publish over HTTP
    can_publish: bool = False
    # values that the authenticator needs to revalidate the credential; never sent anywhere
    private: Mapping[str, str] = field(default_factory=lambda: EMPTY, hash=False, repr=False)

    @property
    def is_authenticated(self) -> bool:
        """Always True: there is no identity without a valid credential."""
        return True

    @property
    def user_key(self) -> str | None:
        """``user_id`` as text, as clients receive it; None for an app."""
        return None if self.user_id is None else str(self.user_id)

    def same_subject(self, other: Identity) -> bool:
        """Return whether both identities are the same user, or the same key, in one project."""
        if self.project != other.project or self.user_key != other.user_key:
            return False
        return self.user_id is not None or self.credential == other.credential


def account_of(identity: Identity, address: str) -> Hashable:
    """Return what shares of resources are given to: a user, or an app at one IP address."""
    if identity.user_key is None:
        return "credential", identity.credential, address
    return "user", identity.project, identity.user_key


def is_active(user: Any) -> bool:
    """Return whether a user may log in; as in Django, a model without ``is_active`` allows it."""
    return bool(getattr(user, "is_active", True))


def username(user: Any) -> str:
    """Return the name that a user logs in by, or the text of a user that has none."""
    get_username = getattr(user, "get_username", None)
    return str(user if get_username is None else get_username())
