"""Keys of the flat form: ``[or:group]field__or__other_operator``.

Which part is the field and which the operator is told by what is declared: the longest declared
name wins, so ``user_id`` is a field, not a field ``user`` with an operator ``id``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from .schema import InvalidFilter, Kind, Ref, Schema

OPERATORS = (
    "eq",
    "ne",
    "gt",
    "gte",
    "lt",
    "lte",
    "contains",
    "icontains",
    "startswith",
    "endswith",
    "in",
    "notin",
    "isnull",
    "between",
)
MAX_PATH = 16  # parts of a path into JSON
_PREFIX = re.compile(r"\[or(?::([^\]]*))?\]")


@dataclass(frozen=True, slots=True)
class Key:
    """A key taken apart. ``group`` names its OR group, None for a plain key.

    ``operator`` is None where the key names none: then a mapping as its value names them.
    """

    group: str | None
    refs: tuple[Ref, ...]
    operator: str | None


class Names:
    """What one client (or the project's own code) may name.

    ``allowed``: field names, and paths into JSON fields as ``meta.owner``; a name allows every
    path below it. None allows the whole schema.
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
        self._known = frozenset(self.allowed)

    def parse(self, key: str, *, plain: bool = False) -> Key:
        """Raises `InvalidFilter` where a field is unknown.

        ``plain``: the operator stands elsewhere, so a path into JSON may end like one.
        """
        found = _PREFIX.match(key)
        group = None if found is None else found[1] or ""
        rest = key if found is None else key[found.end() :]
        *before, last = rest.split("__or__")
        field, operator = self._split(last, key, plain)
        return Key(group, (*(self.ref(name, key) for name in before), field), operator)

    def ref(self, name: str, key: str) -> Ref:
        """A field or a path. Raises `InvalidFilter` in the words of ``key``."""
        ref = self._find(name)
        if ref is None:
            where = "" if name == key else f"{key!r}: "
            message = f"{where}{name!r} cannot be filtered by; allowed are {self.allowed}."
            if any(name.startswith(f"{each}_") for each in self.allowed):
                message += f" If its end was meant as an operator: there are {list(OPERATORS)}."
            raise InvalidFilter(message)
        return ref

    def _split(self, text: str, key: str, plain: bool) -> tuple[Ref, str | None]:
        if text in self._known or text in self._aliases or (plain and self._find(text)):
            return self.ref(text, key), None
        for separator in ("__", "_"):
            name, found, operator = text.rpartition(separator)
            if found and operator in OPERATORS and (ref := self._find(name)) is not None:
                return ref, operator
        return self.ref(text, key), None

    def _find(self, name: str) -> Ref | None:
        name = self._aliases.get(name, name)
        field, *path = name.split(".")
        if field not in self._schema:
            return None
        if path and (self._schema[field].kind is not Kind.JSON or "" in path):
            return None
        if len(path) > MAX_PATH:
            return None
        if any(".".join((field, *path[:n])) in self._known for n in range(len(path) + 1)):
            return (field, *path) if path else self._schema[field].ref
        return None
