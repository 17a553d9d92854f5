"""Identities, which authenticators return: for whom a connection acts, and how it is restricted."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from .utils.repeated_log import omitted_text, repeated_log

# project of keys, tokens and rooms for which no other one was named
DEFAULT_PROJECT = "default"
EMPTY: Mapping[str, Any] = MappingProxyType({})
MAX_NAME_LENGTH = 255  # characters of a displayed name
# name of the room that stands for all connections of a project
PROJECT_ROOM = "*"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AccessScope:
    """The restrictions of a credential, in addition to permissions.

    The names may be given in any container. Raises ``TypeError`` for a single string, and for names
    that are not strings.
    """

    # names of the collections; None for all
    collections: frozenset[str] | None = None
    # patterns of the rooms' names, as in declarations of rooms; None for all rooms
    rooms: tuple[str, ...] | None = None
    # whether it may read, but send nothing to other clients
    read_only: bool = False

    def __post_init__(self) -> None:
        collections, rooms = (
            as_names(name, getattr(self, name)) for name in ("collections", "rooms")
        )
        # the dataclass is frozen
        object.__setattr__(
            self, "collections", None if collections is None else frozenset(collections)
        )
        object.__setattr__(self, "rooms", rooms)

    def has_collection(self, names: Iterable[str]) -> bool:
        """Return whether one of the names, which are those of one collection, is in the scope."""
        return self.collections is None or not self.collections.isdisjoint(names)

    def has_room(self, name: str) -> bool:
        """Return whether the room with this name is in the scope.

        The room ``"*"`` stands for the whole project, so no other pattern matches it.
        """
        if self.rooms is None or name in self.rooms:
            return True
        return name != PROJECT_ROOM and any(fnmatchcase(name, pattern) for pattern in self.rooms)

    def __str__(self) -> str:
        """Describe the restrictions, for lists of keys."""
        parts = [
            f"{noun}: {', '.join(sorted(names)) or 'none'}"
            for noun, names in (("collections", self.collections), ("rooms", self.rooms))
            if names is not None
        ]
        if self.read_only:
            parts.append("read-only")
        return "; ".join(parts) or "all"


def as_names(attribute: str, value: Any) -> tuple[str, ...] | None:
    """Return names as a tuple; None for None. Raises ``TypeError``."""
    if value is None:
        return None
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        names = tuple(value)
        if all(isinstance(name, str) for name in names):
            return names
    raise TypeError(f"{attribute} must be names in a list or another container, not {value!r}.")


def stored_names(value: Any) -> tuple[str, ...] | None:
    """Return a stored list of names. A value that is not a list of strings allows nothing."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return ()
    return tuple(value)


UNRESTRICTED = AccessScope()


@dataclass(frozen=True, slots=True)
class Identity:
    """The user, the app (an API key without a user) or the visitor that a connection acts for."""

    # name of the credential, stable and never secret: ``key:PREFIX``, ``jwt:PROJECT:SUBJECT`` or
    # ``session:HASH``
    credential: str
    # Django user, or None
    user: Any = None
    # primary key of the Django user, or None
    user_id: Any = None
    # name that other clients see
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
    # for a person who is not a Django user: what the credential calls the person, for example the
    # subject of a JWT; None for Django users and apps
    subject: str | None = None
    # restrictions of the credential; they apply in addition to permissions
    scope: AccessScope = UNRESTRICTED
    # whether this is a visitor without a credential, who may only read what is public
    is_anonymous: bool = False
    # fingerprint of the Django user's permissions, read immediately after the user and before any
    # permission was evaluated; None if it was not read
    fingerprint: Any = field(default=None, compare=False, repr=False)

    @property
    def is_authenticated(self) -> bool:
        """Whether the client has a valid credential: True unless it is an anonymous visitor."""
        return not self.is_anonymous

    @property
    def is_read_only(self) -> bool:
        """Whether the client may send nothing to others: no broadcasts, no state, no presence."""
        return self.is_anonymous or self.scope.read_only

    def may_use_collection(self, names: Iterable[str], *, public: bool) -> bool:
        """Return whether the permission of a collection may be asked for this identity.

        ``names`` are the name of the collection and its former names.
        """
        return (public or self.is_authenticated) and self.scope.has_collection(names)

    def may_use_room(self, name: str, *, public: bool = False) -> bool:
        """Return whether the permission of a room may be asked for this identity.

        The room ``"*"`` stands for the whole project. Anonymous visitors never use it.
        """
        if self.is_anonymous and (not public or name == PROJECT_ROOM):
            return False
        return self.scope.has_room(name)

    @property
    def user_key(self) -> str | None:
        """The id that clients receive, and by which users are compared; None for apps and visitors.

        For a Django user it is the primary key as text. For a subject it begins with the kind of
        the credential, for example ``jwt:1``, which is never the id of a Django user.
        """
        if self.user_id is not None:
            return user_key(self.user_id)
        if self.subject is None:
            return None
        return f"{self.credential.partition(':')[0]}:{self.subject}"

    def same_subject(self, other: Identity) -> bool:
        """Return whether both are the same user, key or kind of visitor, in one project."""
        if self.project != other.project or self.user_key != other.user_key:
            return False
        return self.user_key is not None or self.credential == other.credential


def user_key(user_id: Any) -> str:
    """Return the primary key of a Django user as text, as in `Identity.user_key`.

    A key that contains a colon gets another one in front, so that it differs from all subjects.
    """
    text = str(user_id)
    return f":{text}" if ":" in text else text


def account_of(identity: Identity, address: str) -> Hashable:
    """Return what shares of resources are given to: a user, or an app at one IP address.

    The anonymous visitors at one address share like the connections of an app. If each had a share
    of its own, a client could get more by opening more connections.
    """
    if identity.user_key is None:
        return "credential", identity.credential, address
    return "user", identity.project, identity.user_key


def is_active(user: Any) -> bool:
    """Return whether a user may log in; as in Django, a model without ``is_active`` allows it."""
    return bool(getattr(user, "is_active", True))


def clean_name(name: Any) -> str:
    """Return a name as text that every database can store, or "" if it is not a text."""
    text = name if isinstance(name, str) else ""
    return text.replace("\0", "").encode(errors="replace").decode().strip()[:MAX_NAME_LENGTH]


def public_name(*names: Any, default: str) -> str:
    """Return the first name that may be shown to others: not empty, and not an e-mail address."""
    for name in names:
        text = clean_name(name)
        if text and "@" not in text:
            return text
    return default


def display_name(user: Any) -> str:
    """Return the name of a Django user that other clients see.

    It is the short name, the full name or the username, but never an e-mail address: in many
    projects users log in by their address. A user model need not have these methods; without
    ``get_username``, the text of the user is used.
    """
    names = []
    for name in ("get_short_name", "get_full_name", "get_username"):
        method = getattr(user, name, user.__str__ if name == "get_username" else str)
        try:
            names.append(method())
        except Exception:
            omitted = repeated_log.admit((type(user), name), user.pk)
            if omitted is not None:
                more = omitted_text(omitted)
                logger.exception("%s of user %s failed.%s", name, user.pk, more)
    return public_name(*names, default=f"User {user.pk}")
