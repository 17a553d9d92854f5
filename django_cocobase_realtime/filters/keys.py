"""Parser of the keys of filters in the flat form: ``[or:group]field__or__other_operator``.

Field and operator are separated with the help of the known names, of which the longest wins:
``user_id`` is the field of that name if there is one, and not the field ``user`` with an operator
``id``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from .operators import OPERATORS
from .schema import InvalidFilter, Kind, Ref, Schema

MAX_PATH_PARTS = 16  # keys in a path into JSON
_GROUP_PREFIX = re.compile(r"\[or(?::([^\]]*))?\]")


@dataclass(frozen=True, slots=True)
class Key:
    """A parsed key."""

    # the OR group of the condition, "" for the group without a name; None if it is in no group
    group: str | None
    # the fields and paths that are compared, of which at least one must match
    refs: tuple[Ref, ...]
    # name of the operator; None if the key has none
    operator: str | None


class FieldNames:
    """The names that a filter may use, and the parser of keys that contain them.

    ``allowed`` are names of fields, and paths into JSON fields such as ``meta.owner``. Each also
    allows all paths below it. None allows the whole schema. ``aliases`` are further names of
    fields: ``{"author": "owner"}`` lets filters use ``author`` for ``owner``.
    """

    def __init__(
        self,
        schema: Schema,
        allowed: Collection[str] | None = None,
        aliases: dict[str, str] | None = None,
    ) -> None:
        self._schema = schema
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
        ref, operator = self._split_operator(last, key, operator_in_value)
        return Key(group, (*(self.ref(name, key) for name in first), ref), operator)

    def ref(self, name: str, key: str) -> Ref:
        """Return the reference for a field's name or a path.

        Raises `InvalidFilter`, with ``key`` in its message, if the name is not allowed.
        """
        ref = self._find(name)
        if ref is None:
            prefix = "" if name == key else f"{key!r}: "
            message = f"{prefix}{name!r} cannot be filtered by; allowed are {self.allowed}."
            if any(name.startswith(f"{allowed}_") for allowed in self.allowed):
                message += f" If its end is meant as an operator, use one of {list(OPERATORS)}."
            raise InvalidFilter(message)
        return ref

    def _split_operator(
        self, text: str, key: str, operator_in_value: bool
    ) -> tuple[Ref, str | None]:
        is_name = text in self._allowed_set or text in self._aliases
        if is_name or (operator_in_value and self._find(text)):
            return self.ref(text, key), None
        for separator in ("__", "_"):
            name, split, operator = text.rpartition(separator)
            if split and operator in OPERATORS and (ref := self._find(name)) is not None:
                return ref, operator
        return self.ref(text, key), None

    def _find(self, name: str) -> Ref | None:
        name = self._aliases.get(name, name)
        field, *path = name.split(".")
        if field not in self._schema:
            return None
        if path and (self._schema[field].kind is not Kind.JSON or "" in path):
            return None
        if len(path) > MAX_PATH_PARTS:
            return None
        if any(".".join((field, *path[:n])) in self._allowed_set for n in range(len(path) + 1)):
            return (field, *path) if path else self._schema[field].ref
        return None
