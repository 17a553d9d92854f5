"""Conditions on the rows of one alias, read off the WHERE clause of a query.

Only comparisons of plain columns with constants are used, and only of types on whose equality
Python and the database agree. On a column that compares without case, for example, a row would
match in the database but not in Python, and a change of it would be missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.conf import settings
from django.db import models
from django.db.models.expressions import BaseExpression, Col, Subquery
from django.db.models.lookups import Exact, In, IsNull, Lookup
from django.db.models.sql.query import Query
from django.db.models.sql.where import NothingNode, WhereNode

from .table_reads import python_value

# alternatives of conditions: a row must meet all comparisons of one of them, which are given by
# their numbers; none means that no row can meet them
Alternatives: TypeAlias = tuple[tuple[int, ...], ...]
# returns the number of a comparison, or None if a node is not a comparison with constants
Number: TypeAlias = "Callable[[Any], int | None]"

_COMPARABLE = (models.IntegerField, models.BooleanField, models.UUIDField)
_TEXTS = (models.CharField, models.TextField)
# lookups that are not true for null
_FALSE_FOR_NULL = {
    "exact", "iexact", "gt", "gte", "lt", "lte", "contains", "icontains", "startswith",
    "istartswith", "endswith", "iendswith", "range", "in", "regex", "iregex",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of a plain column with constants."""

    # alias of the table in the query
    alias: str
    # attribute name of the column's field
    attname: str
    # name of the column
    column: str
    # the field that converts the column's values; for a foreign key, that of its target
    field: Any
    # how much the comparison distinguishes queries: values of users are different most often
    rank: int
    # the constants, without null
    values: tuple[Any, ...]


def find_comparison(node: Any) -> Comparison | None:
    """Return the comparison that a node of a WHERE clause makes; None if Python cannot test it."""
    if not isinstance(node, Exact | In) or not _is_from_django(node):
        return None
    if not isinstance(node.lhs, Col):
        return None
    target: Any = node.lhs.target
    field = _comparable_field(target)
    constants = node.rhs if isinstance(node, In) else [node.rhs]
    if field is None or not isinstance(constants, list | tuple | set | frozenset | dict):
        return None
    if any(hasattr(value, "resolve_expression") for value in constants):
        return None
    try:
        values = {
            python_value(field, getattr(value, "pk", value)): None
            for value in constants
            if value is not None
        }
    except Exception:
        return None
    return Comparison(
        node.lhs.alias, target.attname, target.column, field, _rank(target), tuple(values)
    )


class Comparisons:
    """The comparisons with constants in a query and its sub-queries, numbered in their order."""

    __slots__ = ("_numbers", "items", "structure")

    def __init__(self, query: Query) -> None:
        # the comparisons
        self.items: list[Comparison] = []
        # what is equal for queries whose comparisons have the same meaning, by their numbers
        self.structure: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._add_query(query)

    def number(self, node: Any) -> int | None:
        """Return the number of the comparison that a node makes, or None if it makes none."""
        return self._numbers.get(id(node))

    def _add_query(self, query: Query) -> None:
        for part in query.combined_queries:
            self._add_query(part)
        for join in query.alias_map.values():
            self._add(join_condition(join))
        self._add(list(query.annotations.values()))
        self._add(query.where)

    def _add(self, node: Any) -> None:
        if isinstance(node, Query):
            self._add_query(node)
        elif isinstance(node, Subquery):
            self._add_query(node.query)
        elif (comparison := find_comparison(node)) is not None:
            # a node that is part of the query twice has one number
            number = self._numbers.setdefault(id(node), len(self.items))
            self.items.append(comparison)
            empty = not comparison.values
            self.structure.append((number, comparison.alias, comparison.attname, empty))
        else:
            kind: Any = type(node)
            if isinstance(node, WhereNode):
                kind = (node.connector, node.negated)
            self.structure.append(kind)
            for child in child_nodes(node):
                self._add(child)
            self.structure.append(None)


def join_condition(join: Any) -> Any:
    """Return the condition of a `FilteredRelation`, with which a table is joined, or None."""
    relation = join.filtered_relation
    return None if relation is None else relation.resolved_condition


def child_nodes(node: Any) -> Iterable[Any]:
    """Return the nodes below a node of a WHERE clause, or below an expression."""
    if isinstance(node, list | tuple | set | frozenset):
        return node
    if isinstance(node, WhereNode):
        return node.children
    if isinstance(node, Lookup):
        sides = [node.lhs, node.rhs, *node.get_source_expressions()]
        return {id(side): side for side in sides if _is_node(side)}.values()
    if isinstance(node, BaseExpression):
        return [child for child in node.get_source_expressions() if child is not None]
    return ()


def _is_node(value: Any) -> bool:
    return isinstance(value, list | tuple | BaseExpression | WhereNode | Query)


def _is_from_django(value: Any) -> bool:
    return type(value).__module__.startswith("django.db.models.")


def _comparable_field(field: Any) -> Any:
    """Return the field whose values Python compares as the database does, or None."""
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    if not _is_from_django(field):
        return None
    if isinstance(field, _TEXTS):
        return None if getattr(field, "db_collation", None) else field
    return field if isinstance(field, _COMPARABLE) else None


def _rank(field: Any) -> int:
    model = field.related_model if field.is_relation else field.model if field.primary_key else None
    if model is None:
        return 1 if isinstance(field, models.BooleanField) else 2
    label = model._meta.label
    return {settings.AUTH_USER_MODEL: 5, "contenttypes.ContentType": 1}.get(label, 4)


def necessary_conditions(node: Any, alias: str, number: Number) -> Alternatives | None:
    """Return conditions that a row of an alias meets whenever a node is true; None if unknown."""
    if isinstance(node, NothingNode):
        return ()
    if not isinstance(node, WhereNode):
        return _single(node, alias, number)
    if node.negated or node.connector == "XOR":
        return None
    parts = [necessary_conditions(child, alias, number) for child in node.children]
    known = [part for part in parts if part is not None]
    if node.connector == "AND" or len(parts) == 1:
        single = [part for part in known if len(part) == 1]
        if single:
            return (tuple(n for part in single for n in part[0]),)
        return min(known, key=len, default=None)
    if not parts or len(known) < len(parts):
        return None
    return tuple(alternative for part in known for alternative in part)


def optional_conditions(
    node: Any, alias: str, aliases: set[str], number: Number
) -> Alternatives | None:
    """Return conditions that a row of a left join meets whenever it makes a node true.

    ``aliases`` are the alias and those joined to it. None if the conditions are unknown.
    """
    if not isinstance(node, WhereNode):
        return _single(node, alias, number)
    parts = [
        optional_conditions(child, alias, aliases, number)
        for child in node.children
        if mentions(child, aliases)
    ]
    known = [part for part in parts if part is not None]
    if node.connector == "AND":
        return min(known, key=len, default=None)
    if not parts or len(known) < len(parts):
        return None
    return tuple(alternative for part in known for alternative in part)


def _single(node: Any, alias: str, number: Number) -> Alternatives | None:
    index = number(node)
    return None if index is None or node.lhs.alias != alias else ((index,),)


def mentions(node: Any, aliases: set[str]) -> bool:
    """Return whether a node contains a column of one of the aliases."""
    if isinstance(node, Col):
        return node.alias in aliases
    if isinstance(node, Query):
        parts = [node.where, *node.annotations.values(), *node.select, *node.combined_queries]
        return any(mentions(part, aliases) for part in parts)
    if isinstance(node, Subquery):
        return mentions(node.query, aliases)
    return any(mentions(child, aliases) for child in child_nodes(node))


def may_hold_for_missing_row(node: Any, aliases: set[str]) -> bool:
    """Return whether a node that mentions the aliases may be true if a left join has no row."""
    if not mentions(node, aliases):
        return False
    if isinstance(node, WhereNode):
        if node.negated or node.connector == "XOR":
            return True
        return any(may_hold_for_missing_row(child, aliases) for child in node.children)
    if isinstance(node, IsNull):
        return bool(node.rhs) or not isinstance(node.lhs, Col)
    if not isinstance(node, Lookup) or not isinstance(node.lhs, Col):
        return True
    constant = not mentions(node.rhs, aliases) and not isinstance(node.rhs, BaseExpression)
    return not (constant and _is_from_django(node) and node.lookup_name in _FALSE_FOR_NULL)
