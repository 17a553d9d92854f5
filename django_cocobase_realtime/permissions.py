"""Permissions: which identities may watch a collection, and which of its rows and fields.

A permission has the methods of `Permission`, or some of them; a method that is missing allows. A
collection names its permission in the ``permission`` option. The methods are synchronous and may
use the ORM. They run in a thread pool when a subscription starts, and again when permissions
change, but not for each event. Only ``has_object_permission`` runs for each row, which is slower.

Permissions are combined like those of Django REST framework: ``IsAuthenticated & (IsAdminUser |
OwnOrders)``, ``~IsGuest``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .identity import Identity, is_active

Visible = Mapping[str, Any] | bool | None
"""True: every row. A filter: rows that match it. False or None: no row."""


class Combinable(type):
    """Metaclass of permissions, which makes classes support ``&``, ``|`` and ``~``."""

    def __and__(cls, other: Any) -> And:
        return And(cls, other)

    def __or__(cls, other: Any) -> Or:  # type: ignore[override]
        return Or(cls, other)

    def __rand__(cls, other: Any) -> And:
        return And(other, cls)

    def __ror__(cls, other: Any) -> Or:  # type: ignore[override]
        return Or(other, cls)

    def __invert__(cls) -> Not:
        return Not(cls)


class Combination:
    """A combination of permissions, usable in place of a permission class.

    It is evaluated by ``declarations.authorization``.
    """

    def __and__(self, other: Any) -> And:
        return And(self, other)

    def __or__(self, other: Any) -> Or:
        return Or(self, other)

    def __rand__(self, other: Any) -> And:
        return And(other, self)

    def __ror__(self, other: Any) -> Or:
        return Or(other, self)

    def __invert__(self) -> Not:
        return Not(self)


class And(Combination):
    """Allows the rows and fields that both permissions allow. Refuses if either refuses."""

    def __init__(self, first: Any, second: Any) -> None:
        self.parts = (first, second)


class Or(Combination):
    """Allows the rows that one of the permissions allows. Refuses if both refuse.

    If both accept the identity, only the fields that both allow are readable, since a row is not
    traced back to the permission that allowed it.
    """

    def __init__(self, first: Any, second: Any) -> None:
        self.parts = (first, second)


class Not(Combination):
    """Allows the rows that the permission does not: all if it refuses. Refuses if it allows all."""

    def __init__(self, part: Any) -> None:
        self.part = part


class Permission(metaclass=Combinable):
    """Lets every authenticated identity watch every row. Subclass it to restrict that."""

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """Return whether the identity may subscribe, with these filters as the client sent them.

        With False, the client gets the same answer as for an unknown collection.
        """
        return identity.is_authenticated

    def visible_to(self, identity: Identity) -> Visible:
        """Return a mandatory filter, which is combined by AND with the client's filter.

        It decides about deletions, too. The filter has the structured form, may use ``$or`` and
        ``$not``, and may name the fields that the collection stores: see the option
        ``permission_fields``. A value that is None matches nothing: with
        ``{"owner": identity.user_id}`` a key without a user sees no rows, also none without an
        owner.
        """
        return True

    def fields_for(self, identity: Identity) -> Collection[str] | None:
        """Return the names of the readable fields of the collection; None for all of them."""
        return None


class AllowAny(Permission):
    """Allows every identity. All identities are authenticated; there are no anonymous ones."""


class IsAuthenticated(Permission):
    """The default permission, by the name that it has in Django REST framework."""


class IsUser(Permission):
    """Allows identities with a user. Refuses API keys without one."""

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """Return whether the credential belongs to a user."""
        return identity.user_id is not None


class IsAdminUser(Permission):
    """Allows active Django users with ``is_staff``."""

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """Return whether the user is an active member of the staff."""
        user = identity.user
        # a user model may do without the field, and then has no staff
        return bool(user is not None and is_active(user) and getattr(user, "is_staff", False))


class IsStaff(IsAdminUser):
    """`IsAdminUser`, by Django's own term."""


class DjangoModelPermissions(Permission):
    """Allows users with Django's ``view`` or ``change`` permission for the collection's model."""

    # set by the collection whose permission is evaluated
    collection: Any = None

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """Return whether ``user.has_perm``. Keys without a user have no permissions."""
        user = identity.user
        if user is None or not is_active(user) or not hasattr(user, "has_perm"):
            return False
        meta = self.collection.model_class._meta
        return any(
            user.has_perm(f"{meta.app_label}.{action}_{meta.model_name}")
            for action in ("view", "change")
        )


def owned_by(field: str) -> type[Permission]:
    """Return a permission class that allows the rows whose ``field`` is the identity's user.

    API keys without a user see no rows.
    """

    class Owned(Permission):
        def visible_to(self, identity: Identity) -> Visible:
            return {field: identity.user_id}

    Owned.__name__ = Owned.__qualname__ = f"owned_by({field!r})"
    return Owned
