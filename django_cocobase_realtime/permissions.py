"""Who may watch a collection, and which rows and fields of it.

A permission has the three methods of `Permission`, or any subset: what is missing allows. It is
named by a collection's ``permission`` option. Its methods are ordinary synchronous code, may use
the ORM, and run when a subscription starts, in a bounded thread pool, never per event.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .identity import Identity

Visible = Mapping[str, Any] | bool | None
"""True: every row. A filter: rows that match it. False or None: no row."""


class Permission:
    """Every authenticated identity may watch every row. The default; subclass to narrow it."""

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """Whether the identity may subscribe at all, with these filters as the client sent them.

        False answers as an unknown collection would.
        """
        return identity.is_authenticated

    def visible_to(self, identity: Identity) -> Visible:
        """A mandatory filter, ANDed to the client's; it also decides deletions.

        A None value inside it matches nothing: ``{"owner": identity.user_id}`` shows a bare
        key no row, and never rows that nobody owns.
        """
        return True

    def fields_for(self, identity: Identity) -> Collection[str] | None:
        """Names of the readable fields, a subset of the collection's; None for all of them."""
        return None


class IsAuthenticated(Permission):
    """The default under its usual name."""


class IsUser(Permission):
    """Identities with a user; a bare API key is refused."""

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """True where a user stands behind the credential."""
        return identity.user_id is not None


class IsStaff(Permission):
    """Active Django users with ``is_staff``."""

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """True for staff."""
        user = identity.user
        return bool(user is not None and user.is_active and user.is_staff)
