"""Who may watch a collection, and which rows and fields of it.

A permission has the methods of `Permission`, or any subset: what is missing allows. It is named
by a collection's ``permission`` option. Its methods are ordinary synchronous code, may use the
ORM, and run when a subscription starts and again when rights change, in a bounded thread pool,
never per event; ``has_object_permission`` alone is asked for each row, on a slower path.

Permissions combine as those of Django REST framework do: ``IsAuthenticated & (IsAdminUser |
OwnOrders)``, ``~IsGuest``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .identity import Identity

Visible = Mapping[str, Any] | bool | None
"""True: every row. A filter: rows that match it. False or None: no row."""


class Combinable(type):
    """Lets permission classes, and what they combine to, be joined by ``&``, ``|`` and ``~``."""

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
    """A combined permission; stands wherever a permission class does. See `grants.decide`."""

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
    """Rows that both show, and the fields that both show; refused where either refuses."""

    def __init__(self, first: Any, second: Any) -> None:
        self.parts = (first, second)


class Or(Combination):
    """Rows that either shows, to an identity that this one would admit.

    Of fields, those that all that admit the identity show: which of them showed a row is not told
    apart. Refused where both refuse.
    """

    def __init__(self, first: Any, second: Any) -> None:
        self.parts = (first, second)


class Not(Combination):
    """Rows that the permission does not show; refused where it shows all, all where it refuses."""

    def __init__(self, part: Any) -> None:
        self.part = part


class Permission(metaclass=Combinable):
    """Every authenticated identity may watch every row. The default; subclass to narrow it."""

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """Whether the identity may subscribe at all, with these filters as the client sent them.

        False answers as an unknown collection would.
        """
        return identity.is_authenticated

    def visible_to(self, identity: Identity) -> Visible:
        """A mandatory filter, ANDed to the client's; it also decides deletions.

        In the structured form, ``$or`` and ``$not`` included; any field of the model may be named.
        A None value inside it matches nothing: ``{"owner": identity.user_id}`` shows a bare key
        no row, and never rows that nobody owns.
        """
        return True

    def fields_for(self, identity: Identity) -> Collection[str] | None:
        """Names of the readable fields, a subset of the collection's; None for all of them."""
        return None


class AllowAny(Permission):
    """Whoever has a credential that holds. There are no anonymous identities."""


class IsAuthenticated(Permission):
    """The default under its usual name."""


class IsUser(Permission):
    """Identities with a user; a bare API key is refused."""

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """True where a user stands behind the credential."""
        return identity.user_id is not None


class IsAdminUser(Permission):
    """Active Django users with ``is_staff``."""

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """True for staff."""
        user = identity.user
        return bool(user is not None and user.is_active and user.is_staff)


class IsStaff(IsAdminUser):
    """`IsAdminUser` by Django's own word."""


class DjangoModelPermissions(Permission):
    """Users with Django's ``view`` or ``change`` permission for the collection's model.

    ``collection`` is set by the collection that asks.
    """

    collection: Any = None

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """Asks ``user.has_perm``; a bare key has none."""
        user = identity.user
        if user is None or not user.is_active:
            return False
        meta = self.collection.model_class._meta
        return any(
            user.has_perm(f"{meta.app_label}.{action}_{meta.model_name}")
            for action in ("view", "change")
        )


def owned_by(field: str) -> type[Permission]:
    """A permission class: rows whose ``field`` is the identity's user. A bare key sees none."""

    class Owned(Permission):
        def visible_to(self, identity: Identity) -> Visible:
            return {field: identity.user_id}

    Owned.__name__ = Owned.__qualname__ = f"owned_by({field!r})"
    return Owned
