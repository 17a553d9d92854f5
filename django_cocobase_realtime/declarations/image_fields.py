"""Which tables and fields of a model the images of its rows hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.db import models
from django.utils.module_loading import import_string

from ..filters import Filter
from ..filters.nodes import And, Condition, InKeySet, Node, Not, Or
from ..filters.paths import ModelPaths
from ..permissions import And as BothAllow
from ..permissions import Not as Inverted
from ..permissions import Or as EitherAllows
from ..permissions import Permission

# matches the names of fields that look secret
SECRET_LOOKING = re.compile(
    r"(?:^|_)(?:password|passwd|pwd|passphrase|secret|token|api_?key|private_?key|access_?key"
    r"|credentials?|otp|cvv|cvc|ssn|session_?key|salt)s?(?:_|$)"
)


def is_secret_looking(name: str) -> bool:
    """Return whether a field's name suggests that its value is secret, such as "api_key"."""
    return SECRET_LOOKING.search(name.lower()) is not None


def is_secret_path(name: str, paths: ModelPaths) -> bool:
    """Return whether a path to a value in related rows suggests that this value is secret."""
    return paths.find(name) is not None and any(map(is_secret_looking, name.split(".")))


def fields_not_secret(
    model: type[models.Model], not_secret: Iterable[str]
) -> dict[str, models.Field[Any, Any]]:
    """Return the concrete fields by name, without those that look secret.

    ``not_secret`` are names of fields that look secret but are not.
    """
    allowed = set(not_secret)
    return {
        field.name: field
        for field in model._meta.concrete_fields
        if field.name in allowed or not is_secret_looking(field.name)
    }


def default_names(
    model: type[models.Model], not_secret: Iterable[str], exclude: Iterable[str]
) -> tuple[str, ...]:
    """Return the names of the concrete fields that neither look secret nor are excluded."""
    excluded = set(exclude)
    return tuple(name for name in fields_not_secret(model, not_secret) if name not in excluded)


def first_datetime_field(model: type[models.Model], names: Iterable[str], flag: str) -> str | None:
    """Return the first of the named fields that is a datetime with ``auto_now`` or the like."""
    for name in names:
        field = model._meta.get_field(name)
        if isinstance(field, models.DateTimeField) and getattr(field, flag):
            return name
    return None


def field_aliases(model: type[models.Model]) -> dict[str, str]:
    """Return other names of fields: ``owner_id``, ``pk``."""
    fields = model._meta.concrete_fields
    aliases = {field.attname: field.name for field in fields if field.attname != field.name}
    aliases.setdefault("pk", model._meta.pk.name)
    return aliases


def key_names(model: type[models.Model]) -> tuple[str, ...]:
    """Return the names of the fields of the primary key."""
    return tuple(field.name for field in model._meta.pk_fields)


def row_tables(model: type[models.Model]) -> list[type[models.Model]]:
    """Return the models whose tables hold a row of ``model``: itself, then its parents."""
    return [model, *(parent for parent in model._meta.all_parents if not parent._meta.proxy)]


def filter_names(filter: Filter) -> frozenset[str]:
    """Return the names of the fields that a filter looks at."""
    return frozenset(_node_names(filter.root))


def _node_names(node: Node) -> Iterator[str]:
    match node:
        case Condition() | InKeySet():
            yield node.ref[0]
        case And(parts) | Or(parts):
            for part in parts:
                yield from _node_names(part)
        case Not(part):
            yield from _node_names(part)


def depends_on_rows(permission: Any) -> bool:
    """Return whether a permission, or a part of a combination, decides by the values of rows."""
    if isinstance(permission, str):
        try:
            permission = import_string(permission)
        except ImportError:  # reported by a system check
            return True
    match permission:
        case BothAllow(parts=parts) | EitherAllows(parts=parts):
            return any(map(depends_on_rows, parts))
        case Inverted(part=part):
            return depends_on_rows(part)
    if getattr(permission, "has_object_permission", None) is not None:
        return True
    visible_to = getattr(permission, "visible_to", None)
    return visible_to is not None and visible_to is not Permission.visible_to
