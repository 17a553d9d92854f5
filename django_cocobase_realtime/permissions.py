"""Permissions: which identities may watch a collection, and which of its rows and fields.

A permission has the methods of `Permission`, or some of them; a method that is missing does not
restrict anything. A collection names its permission in the ``permission`` option. The methods are
synchronous and may use the ORM. If one raises, the subscription is refused. They run in a thread
pool when a subscription starts, and again when permissions change, but not for each event. Only
``has_object_permission``, which a permission may have in addition, runs for each row, which is
slower.

Permissions are combined like those of Django REST framework: ``IsAuthenticated & (IsAdminUser |
OwnOrders)``, ``~IsGuest``.

No permission is asked about anonymous visitors unless the collection is declared as ``public``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from .filters import ClientFilters
from .identity import Identity, is_active

# which rows are visible: True for all, a filter for those that match it, False or None for none
Visible = Mapping[str, Any] | bool | None


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
    """Both permissions: allows what both allow, and refuses if one of them refuses."""

    def __init__(self, first: Any, second: Any) -> None:
        self.parts = (first, second)


class Or(Combination):
    """Either permission: allows the rows that one of them allows, and refuses if both refuse.

    If both accept the identity, only the fields that both allow are readable, because it is not
    known for a row which of them allowed it.
    """

    def __init__(self, first: Any, second: Any) -> None:
        self.parts = (first, second)


class Not(Combination):
    """The opposite of a permission: allows the rows that it does not allow.

    It allows all rows if the permission refuses, and refuses if the permission allows all rows.
    """

    def __init__(self, part: Any) -> None:
        self.part = part


class Permission(metaclass=Combinable):
    """Base class of permissions. It allows every identity to watch every row.

    This includes anonymous visitors if the collection is public.
    """

    def can_subscribe(self, identity: Identity, filters: ClientFilters) -> bool:
        """Return whether the identity may subscribe with this filter of the client.

        ``filters.only("ticket")`` is the only value that the field has in all rows which match,
        or None. ``filters`` itself is a dictionary, in the form in which the client sent it. With
        False, the client gets the same answer as for an unknown collection.
        """
        return True

    def visible_to(self, identity: Identity) -> Visible:
        """Return which rows the identity may see: True for all, or a filter.

        Rows must match this filter and that of the client. It also decides which deletions are
        reported. The filter is a mapping with the operators of the query language, also ``$or``
        and ``$not``. It may name the fields that the collection stores: see the option
        ``permission_fields``. In it, the value None matches no row: with
        ``{"owner": identity.user_id}`` a key without a user does not see rows without an owner.
        """
        return True

    def fields_for(self, identity: Identity) -> Collection[str] | None:
        """Return the names of the readable fields of the collection; None for all of them."""
        return None


class AllowAny(Permission):
    """Allows every identity: in a public collection, also anonymous visitors."""


class HasCredential(Permission):
    """Allows users, subjects of tokens, and API keys; refuses anonymous visitors.

    A collection that is not public and names no permission is restricted in the same way.
    """

    def can_subscribe(self, identity: Identity, filters: ClientFilters) -> bool:
        """Return whether the client has a valid credential."""
        return identity.is_authenticated


class IsAuthenticated(Permission):
    """Allows users and subjects of tokens; refuses API keys without a user, and visitors."""

    def can_subscribe(self, identity: Identity, filters: ClientFilters) -> bool:
        """Return whether the credential belongs to a person, in Django or elsewhere."""
        return identity.is_authenticated and identity.user_key is not None


class IsAdminUser(Permission):
    """Allows active Django users with ``is_staff``."""

    def can_subscribe(self, identity: Identity, filters: ClientFilters) -> bool:
        """Return whether the user is an active member of the staff."""
        user = identity.user
        # a user model may do without the field, and then has no staff
        return bool(user is not None and is_active(user) and getattr(user, "is_staff", False))


class IsStaff(IsAdminUser):
    """The same as `IsAdminUser`, under the name that Django uses."""


class DjangoModelPermissions(Permission):
    """Allows users with Django's ``view`` or ``change`` permission for the collection's model."""

    # the collection whose permission is evaluated, which sets this attribute
    collection: Any = None

    def can_subscribe(self, identity: Identity, filters: ClientFilters) -> bool:
        """Return whether the user has one of the permissions. Keys without a user have none."""
        user = identity.user
        if user is None or not is_active(user) or not hasattr(user, "has_perm"):
            return False
        meta = self.collection.model_class._meta
        return any(
            user.has_perm(f"{meta.app_label}.{action}_{meta.model_name}")
            for action in ("view", "change")
        )


def owned_by(field: str, *, by: Literal["user_id", "subject"] = "user_id") -> type[Permission]:
    """Return a permission class that allows the rows whose ``field`` is the identity's user.

    With ``by="subject"``, the field is compared with the subject of tokens without a Django user.
    Identities without a user, or without a subject, see no rows.
    """
    if by not in ("user_id", "subject"):
        raise ValueError(f"by must be 'user_id' or 'subject', not {by!r}.")

    class Owned(Permission):
        def visible_to(self, identity: Identity) -> Visible:
            return {field: getattr(identity, by)}

    Owned.__name__ = Owned.__qualname__ = f"owned_by({field!r})"
    return Owned
