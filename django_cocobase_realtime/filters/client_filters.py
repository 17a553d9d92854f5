"""The filters of a client, as ``can_subscribe`` receives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from .filter import Filter
from .key_set import KeySet
from .keys import FieldNames, Paths
from .nodes import And, Condition
from .operators import IN
from .parser import FilterLimits, MakeKeySet, parse
from .schema import InvalidFilter, Kind, Schema


class ClientFilters(dict[str, Any]):
    """The filters of a client: a dictionary in the form in which the client sent them.

    The same condition has several forms (``{"ticket": 1}``, ``{"ticket__in": [1]}``,
    ``{"$and": [{"ticket": {"eq": "1"}}]}``), and other conditions contain the same keys
    (``{"$not": {"ticket": 1}}``). Use `only` instead of comparing values of the dictionary.
    """

    def __init__(
        self,
        filters: Mapping[str, Any],
        schema: Schema,
        aliases: Mapping[str, str] | None = None,
        paths: Paths | None = None,
    ) -> None:
        super().__init__(filters)
        self._filters = filters
        self._schema = schema
        self._aliases = dict(aliases or {})
        self._paths = paths
        # the parsed filter; not set until it is needed
        self._parsed: Filter | None = None

    def only(self, field: str) -> Any:
        """Return the only value that the field has in the rows which match, or None.

        The value has the type of the field: for an integer field, ``"1"`` and ``1`` are both 1. A
        foreign key has the type of the key. ``field`` may be a path into a JSON field. Returns
        None if rows with other values can match, and if the filter is not valid, in which case it
        will be refused. Raises ``ValueError`` if clients cannot filter by such a field.
        """
        ref = FieldNames(self._schema, aliases=self._aliases).ref(field)
        try:
            if self._parsed is None:
                self._parsed = parse(
                    self._filters, self._schema, key_set=_without_query, paths=self._paths
                )
        except InvalidFilter:
            return None
        # the parser joins nested conjunctions, and all conditions with ``in`` on one field
        root = self._parsed.root
        for part in root.parts if isinstance(root, And) else (root,):
            if not isinstance(part, Condition) or part.operator is not IN or part.ref != ref:
                continue
            if len(part.operand) == 1:
                (value,) = part.operand
                return value[1] if part.kind is Kind.JSON else value
        return None

    def related(
        self, allowed: Collection[str], limits: FilterLimits, key_set: MakeKeySet
    ) -> Filter | None:
        """Return the parsed filter if it has conditions on related rows, else None.

        These need queries. Returns None as well if the filter is not valid. For internal use.
        """
        parse_with = partial(
            parse, self._filters, self._schema, allowed=allowed, limits=limits, paths=self._paths
        )
        try:
            has_related = bool(parse_with(key_set=_without_query).key_sets())
        except InvalidFilter:
            return None
        return parse_with(key_set=key_set) if has_related else None


def _without_query(field: str, queryset: Any) -> KeySet:
    """Return a set in place of that of related rows, which does not matter to `only`."""
    return KeySet("", Kind.OPAQUE)
