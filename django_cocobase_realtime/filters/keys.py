"""Parser of the keys of filters in the flat form: ``[or:group]field__or__other_operator``.

Field and operator are separated with the help of the known names, of which the longest wins:
``user_id`` is the field of that name if there is one, and not the field ``user`` with an operator
``id``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from .filter import Filter
from .operators import OPERATORS
from .schema import FieldSpec, InvalidFilter, Kind, Ref, Schema

MAX_PATH_PARTS = 16  # keys in a path into JSON
_GROUP_PREFIX = re.compile(r"\[or(?::([^\]]*))?\]")


class Path(Protocol):
    """A path to a value in related rows, see ``paths.RelatedPath``."""

    @property
    def field(self) -> str:
        """The field whose values are compared with the keys of related rows."""
        raise NotImplementedError

    @property
    def by_first_part(self) -> bool:
        """Whether the field is the first part of the path."""
        raise NotImplementedError

    @property
    def to_one(self) -> bool:
        """Whether a row has at most one related row."""
        raise NotImplementedError

    @property
    def ref(self) -> Ref:
        """The value in a related row."""
        raise NotImplementedError

    @property
    def spec(self) -> FieldSpec:
        """The properties of that value's field."""
        raise NotImplementedError

    def matching(self, filter: Filter) -> Any:
        """Return the queryset of which some related row matches a filter on that value."""
        raise NotImplementedError

    def matching_keys(self, queryset: Any, *, negated: bool) -> Any:
        """Return the queryset of which some related row has a value that a queryset returns."""
        raise NotImplementedError


class Paths(Protocol):
    """The paths that begin at a model, see ``paths.ModelPaths``."""

    def find(self, name: str) -> Path | None:
        """Return a path, or None if the name is not one."""

    def resolve(self, name: str) -> Path | None:
        """Do the same, but raise `InvalidFilter` if the name begins like a path."""


# a value in the row itself, or in related rows
Target = Ref | Path


@dataclass(frozen=True, slots=True)
class Key:
    """A parsed key."""

    # the OR group of the condition, "" for the group without a name; None if it is in no group
    group: str | None
    # the fields and paths that are compared, of which at least one must match
    targets: tuple[Target, ...]
    # name of the operator; None if the key has none
    operator: str | None


class FieldNames:
    """The names that a filter may use, and the parser of keys that contain them.

    ``allowed`` are names of fields, and paths into JSON fields such as ``meta.owner``. Each also
    allows all paths below it. Paths through related models must be named exactly. None allows the
    whole schema, and all ``paths`` through related models. ``aliases`` are further names of fields:
    ``{"author": "owner"}`` lets filters use ``author`` for ``owner``.
    """

    def __init__(
        self,
        schema: Schema,
        allowed: Collection[str] | None = None,
        aliases: dict[str, str] | None = None,
        paths: Paths | None = None,
    ) -> None:
        self._schema = schema
        self._paths = paths
        self._allows_all = allowed is None
        self._aliases = aliases or {}
        self.allowed = sorted(
            name
            for name in (schema if allowed is None else allowed)
            if name.partition(".")[0] in schema
        )
        self._allowed_set = frozenset(self.allowed)

    def parse(self, key: str, *, operator_in_value: bool = False) -> Key:
        """Parse a key. Raises `InvalidFilter` if it names a field that is not allowed.

        With ``operator_in_value``, the operator is not in the key, as in
        ``{"meta.size_gt": {"eq": 3}}``. A path into JSON may then end like an operator.
        """
        prefix = _GROUP_PREFIX.match(key)
        group = None if prefix is None else prefix[1] or ""
        names = key if prefix is None else key[prefix.end() :]
        *first, last = names.split("__or__")
        target, operator = self._split_operator(last, key, operator_in_value)
        return Key(group, (*(self.target(name, key) for name in first), target), operator)

    def ref(self, name: str) -> Ref:
        """Return the reference for a field's name or a path into JSON.

        Raises `InvalidFilter` if the name is not allowed, or leads to related rows.
        """
        target = self.target(name, name)
        if not isinstance(target, tuple):
            raise InvalidFilter(f"{name!r} is a value of related rows.")
        return target

    def target(self, name: str, key: str) -> Target:
        """Return the reference for a field's name or a path, or the path through related models.

        Raises `InvalidFilter`, with ``key`` in its message, if the name is not allowed.
        """
        target = self._find(name)
        if target is None:
            if self._paths is not None and self._allows_all:
                self._paths.resolve(name)
            prefix = "" if name == key else f"{key!r}: "
            message = f"{prefix}{name!r} cannot be filtered by; allowed are {self.allowed}."
            if any(name.startswith(f"{allowed}_") for allowed in self.allowed):
                message += f" If its end is meant as an operator, use one of {list(OPERATORS)}."
            raise InvalidFilter(message)
        return target

    def _split_operator(
        self, text: str, key: str, operator_in_value: bool
    ) -> tuple[Target, str | None]:
        is_name = text in self._allowed_set or text in self._aliases or self._find_related(text)
        if is_name or (operator_in_value and self._find(text)):
            return self.target(text, key), None
        for separator in ("__", "_"):
            name, split, operator = text.rpartition(separator)
            if split and operator in OPERATORS and (target := self._find(name)) is not None:
                return target, operator
        return self.target(text, key), None

    def _find(self, name: str) -> Target | None:
        name = self._aliases.get(name, name)
        field, *path = name.split(".")
        if (related := self._find_related(name)) is not None:
            return related
        if field not in self._schema:
            return None
        if path and (self._schema[field].kind is not Kind.JSON or "" in path):
            return None
        if len(path) > MAX_PATH_PARTS:
            return None
        if any(".".join((field, *path[:n])) in self._allowed_set for n in range(len(path) + 1)):
            return (field, *path) if path else self._schema[field].ref
        return None

    def _find_related(self, name: str) -> Path | None:
        if self._paths is None or not (self._allows_all or name in self._allowed_set):
            return None
        field, has_path, _ = name.partition(".")
        if field in self._schema and (not has_path or self._schema[field].kind is Kind.JSON):
            return None  # a value of the row itself
        path = self._paths.find(name)
        if path is None or path.field not in self._schema:
            return None
        # clients name the paths that the collection declares, of which those to one row are allowed
        return path if self._allows_all or path.to_one else None
