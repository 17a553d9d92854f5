"""Checks of what anonymous visitors may read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage

from ..auth.backends import is_for_visitors
from ..conf import conf
from ..declarations.collection import Collection
from ..declarations.registry import registry, room_registry
from ..permissions import (
    AllowAny,
    And,
    DjangoModelPermissions,
    HasCredential,
    IsAdminUser,
    IsAuthenticated,
    Or,
    Permission,
)
from .base import warning
from .permissions import permission_parts

# the ``can_subscribe`` of permissions that never admit anonymous visitors
REFUSALS = [
    cls.can_subscribe
    for cls in (HasCredential, IsAuthenticated, IsAdminUser, DjangoModelPermissions)
]


def check_visitors() -> Iterator[CheckMessage]:
    """Check that what is declared as public can be read by anonymous visitors, and no more."""
    collections = list(registry)
    for collection in collections:
        yield from _check_permission(collection)
    public = [f"collection {c.name!r}" for c in collections if c.public]
    public += [f"rooms {room.pattern!r}" for room in room_registry if room.public]
    if public and not any(map(is_for_visitors, conf.authenticators)):
        yield warning(
            66,
            f"Declared as public: {', '.join(public)}. But anonymous visitors cannot connect.",
            "Add 'django_cocobase_realtime.auth.anonymous.Anonymous' to AUTHENTICATORS, or remove "
            "'public'.",
        )


def _check_permission(collection: Collection) -> Iterator[CheckMessage]:
    name, permission = collection.name, collection.loaded_permission
    if not collection.public:
        if any(part is AllowAny for part in permission_parts(permission)):
            yield warning(
                67,
                f"Collection {name!r} names AllowAny, but anonymous visitors cannot read it.",
                "Set 'public' to True if they may. Otherwise use HasCredential, which admits the "
                "same clients as AllowAny does here.",
            )
        return
    if _always_refuses(permission) or _always_refuses(type(collection)):
        yield warning(
            68,
            f"Collection {name!r} is public, but its permission refuses anonymous visitors.",
            "Remove 'public', or name a permission that admits them, such as AllowAny.",
        )
        return
    may_hide_fields = any(
        hasattr(part, "fields_for") and not _is_inherited(part)
        for part in (type(collection), *permission_parts(permission))
    )
    if collection.fields is None and collection.serializer is None and not may_hide_fields:
        yield warning(
            69,
            f"Collection {name!r} is public and names no fields: all visitors read "
            f"{', '.join(collection.readable or ())}, and fields that are added later.",
            "Name the 'fields' that everyone may read.",
        )


def _always_refuses(permission: Any) -> bool:
    """Return whether a permission refuses anonymous visitors, whatever the project's code does."""
    match permission:
        case And(parts=parts):
            return any(map(_always_refuses, parts))
        case Or(parts=parts):
            return all(map(_always_refuses, parts))
    cls = permission if isinstance(permission, type) else type(permission)
    return getattr(cls, "can_subscribe", None) in REFUSALS


def _is_inherited(part: Any) -> bool:
    """Return whether `fields_for` is that of a base class of this app, which allows all fields."""
    cls: Any = part if isinstance(part, type) else type(part)
    return cls.fields_for in (Permission.fields_for, Collection.fields_for)
