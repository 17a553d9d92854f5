"""Tables that a query reads, with their columns and conditions, read off Django's own `Query`.

A query and its sub-queries are read one by one, after Django has set up its compiler: only then
are the joins of ORDER BY known. Django's ``as_sql()`` would reset the reference counts of aliases.

`Query` is private API of Django. A test compares what is read here with the results of queries, on
each supported version.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models import expressions
from django.db.models.expressions import BaseExpression, Col, RawSQL, Subquery
from django.db.models.lookups import Exact, In
from django.db.models.sql.constants import LOUTER
from django.db.models.sql.datastructures import BaseTable, Join
from django.db.models.sql.query import Query
from django.db.models.sql.where import ExtraWhere, WhereNode

from .conditions import (
    Alternatives,
    Comparisons,
    child_nodes,
    join_condition,
    may_hold_for_missing_row,
    mentions,
    necessary_conditions,
    optional_conditions,
)
from .errors import UnsupportedQuery
from .links import Hop, Links, Node, Path
from .refusals import refuse_unsupported, refuse_volatile, table_model


@dataclass(frozen=True, slots=True)
class AliasReads:
    """Columns and conditions of one table under one alias of a query."""

    # attribute names of the columns; None for all
    columns: frozenset[str] | None
    # conditions of the rows, by the numbers of comparisons; None if every row may matter
    alternatives: Alternatives | None
    # ways to rows that are compared with the values of single queries
    paths: tuple[Path, ...]


@dataclass(slots=True)
class _Level:
    """One of the queries of a nested query."""

    number: int
    query: Query
    outer: _Level | None
    # whether only the existence of a row matters
    exists: bool
    # columns that are read, by alias
    columns: dict[str, set[str]]
    # expressions in which a missing row of a left join matters
    outputs: list[Any] = field(default_factory=list)
    # sub-queries, by the identity of the query as it is in the expressions
    inner: dict[int, _Level] = field(default_factory=dict)
    # aliases to which sub-queries refer
    referenced: set[str] = field(default_factory=set)

    @property
    def is_sliced(self) -> bool:
        """Whether the query returns some of its rows, so that one row can displace another."""
        query = self.query
        return bool(
            query.low_mark or query.distinct_fields or (query.is_sliced and not self.exists)
        )

    def node(self, alias: str) -> Node:
        """Return the node of an alias of this query."""
        return self.number, alias

    def table(self, alias: str) -> str:
        """Return the name of the table that an alias stands for."""
        return self.query.alias_map[alias].table_name

    def owner(self, alias: str) -> _Level | None:
        """Return the query that an alias belongs to: this one, or one of those around it."""
        if alias in self.columns:
            return self
        return None if self.outer is None else self.outer.owner(alias)

    def is_left(self, alias: str) -> bool:
        """Return whether an alias is joined such that it may have no row."""
        return self.query.alias_map[alias].join_type == LOUTER


def read_dependencies(
    query: Query, using: str, comparisons: Comparisons
) -> dict[str, tuple[AliasReads, ...]]:
    """Return what a query reads, by the labels of the models of its tables.

    Raises `UnsupportedQuery`.
    """
    return _Reader(using, comparisons).read(query)


class _Reader:
    def __init__(self, using: str, comparisons: Comparisons) -> None:
        self._using = using
        self._comparisons = comparisons
        self._levels: list[_Level] = []
        self._links = Links()
        # whether there is a node that Django does not know, which may use any column
        self._unknown = False

    def read(self, query: Query) -> dict[str, tuple[AliasReads, ...]]:
        self._visit_query(query, None, exists=False)
        for level in self._levels:
            self._link_joins(level)
            for node in _conjunction(level.query.where):
                self._link_condition(node, level)
            self._set_conditions(level)
        for level in self._levels:
            self._set_either(level)
        reads: dict[str, dict[AliasReads, None]] = {}
        for level in self._levels:
            for alias in level.columns:
                label = table_model(level.table(alias))._meta.label
                of_table = reads.setdefault(label, {})
                if self._unknown:
                    of_table[AliasReads(None, None, ())] = None
                    continue
                columns = frozenset(level.columns[alias])
                alternatives = self._alternatives(level, alias)
                paths = self._links.paths(level.node(alias))
                of_table[AliasReads(columns, alternatives, paths)] = None
        return {label: tuple(of_table) for label, of_table in reads.items()}

    # columns

    def _visit_query(self, query: Query, outer: _Level | None, *, exists: bool) -> _Level | None:
        """Read a query and its sub-queries. Returns None if it is a combination or empty."""
        if query.combined_queries:
            for part in query.combined_queries:
                if query.values_select and not part.values_select:
                    part = part.clone()  # as the compiler of combinations does
                    part.set_values((*query.values_select, *query.annotation_select))
                self._visit_query(part, outer, exists=False)
            return None
        refuse_unsupported(query)
        query = query.clone()
        compiler = query.get_compiler(self._using)
        try:
            _, order, _ = compiler.pre_sql_setup()
        except EmptyResultSet:
            return None
        columns: dict[str, set[str]] = {
            alias: set() for alias, count in query.alias_refcount.items() if count
        }
        level = _Level(len(self._levels), query, outer, exists, columns)
        self._levels.append(level)
        level.outputs += [expression for expression, _, _ in compiler.select or ()]
        if query.is_sliced or query.distinct_fields:
            level.outputs += [expression for expression, _ in order]
        if isinstance(query.group_by, tuple):
            level.outputs += query.group_by
        self._visit([*level.outputs, query.where], level)
        for alias in columns:
            self._visit_join(alias, level)
        return level

    def _visit_join(self, alias: str, level: _Level) -> None:
        join: Any = level.query.alias_map[alias]
        table_model(join.table_name)
        if type(join) is BaseTable:
            return
        if type(join) is not Join:
            self._unknown = True
            return
        for source, target in _joined_fields(join):
            level.columns.setdefault(join.parent_alias, set()).add(source.attname)
            level.columns[alias].add(target.attname)
        relation: Any = join.join_field
        restriction = relation.get_extra_restriction(alias, join.parent_alias)
        if restriction:
            self._visit(restriction, level)
        self._visit(join_condition(join), level)

    def _visit(self, node: Any, level: _Level) -> None:
        if isinstance(node, Query):
            self._visit_subquery(node, level, exists=False)
        elif isinstance(node, Subquery):
            exists = isinstance(node, expressions.Exists)
            self._visit_subquery(node.query, level, exists=exists)
        elif isinstance(node, Col):
            self._visit_column(node, level)
        elif isinstance(node, RawSQL | ExtraWhere):
            raise UnsupportedQuery(
                "A key query contains SQL, whose tables are unknown: "
                "replace extra() or RawSQL by expressions of the ORM."
            )
        else:
            if isinstance(node, BaseExpression):
                refuse_volatile(node)
                # expressions of other packages may contain more than their source expressions
                self._unknown |= not type(node).__module__.startswith("django.")
                self._unknown |= type(node) is expressions.Func
            for child in child_nodes(node):
                self._visit(child, level)

    def _visit_subquery(self, query: Query, level: _Level, *, exists: bool) -> None:
        inner = self._visit_query(query, level, exists=exists)
        if inner is not None:
            level.inner[id(query)] = inner

    def _visit_column(self, column: Col, level: _Level) -> None:
        owner = level.owner(column.alias)
        if owner is None:
            self._unknown = True
            return
        owner.columns[column.alias].add(column.target.attname)
        if owner is not level:
            owner.referenced.add(column.alias)

    # links

    def _link_joins(self, level: _Level) -> None:
        for alias in level.columns:
            join = level.query.alias_map[alias]
            if not isinstance(join, Join) or len(_joined_fields(join)) != 1:
                continue
            source, target = _joined_fields(join)[0]
            outer, joined = level.node(join.parent_alias), level.node(alias)
            self._links.add(joined, Hop(target, source, level.table(join.parent_alias)), outer)
            hop = Hop(source, target, join.table_name)
            self._links.add(outer, hop, joined, optional=level.is_left(alias))

    def _link_condition(self, node: Any, level: _Level) -> None:
        """Add the links of a condition that must be true for the query to return anything."""
        if isinstance(node, Exact) and isinstance(node.lhs, Col) and isinstance(node.rhs, Col):
            self._link_columns(node.lhs, node.rhs, level)
        for column, key, inner in self._inner_columns(node, level):
            self._link_down(column, key, inner, level)
            if isinstance(node, In) and not inner.is_sliced:
                self._links.add(
                    inner.node(key.alias),
                    Hop(key.target, column.target, level.table(column.alias)),
                    level.node(column.alias),
                )

    def _link_columns(self, one: Col, other: Col, level: _Level) -> None:
        """Add the link of two columns that must be equal; one may be of an outer query."""
        for here, there in ((one, other), (other, one)):
            if here.alias not in level.columns or level.is_left(here.alias):
                continue
            owner = level.owner(there.alias)
            if owner is None or (owner is level and level.is_left(there.alias)):
                continue
            hop = Hop(here.target, there.target, owner.table(there.alias))
            self._links.add(level.node(here.alias), hop, owner.node(there.alias))

    def _inner_columns(self, node: Any, level: _Level) -> Iterable[tuple[Col, Col, _Level]]:
        """Yield columns of a query and of a sub-query that are equal if a condition is true."""
        if (
            isinstance(node, Exact)
            and isinstance(node.lhs, expressions.Exists)
            and node.rhs is True
        ):
            node = node.lhs
        if isinstance(node, expressions.Exists):
            inner = level.inner.get(id(node.query))
            conditions = () if inner is None else _conjunction(inner.query.where)
            pairs = [
                pair
                for condition in conditions
                if isinstance(condition, Exact)
                for pair in ((condition.lhs, condition.rhs), (condition.rhs, condition.lhs))
            ]
        elif isinstance(node, In) and isinstance(node.rhs, Query):
            inner = level.inner.get(id(node.rhs))
            pairs = [(node.lhs, key) for key in node.rhs.select]
        else:
            return
        if inner is None or inner.query.group_by is not None:
            return
        for column, key in pairs:
            if not isinstance(column, Col) or column.alias not in level.columns:
                continue
            if not isinstance(key, Col) or key.alias not in inner.columns:
                continue
            if not inner.is_left(key.alias):
                yield column, key, inner

    def _link_down(
        self, column: Col, key: Col, inner: _Level, level: _Level, *, optional: bool = False
    ) -> None:
        if not level.is_left(column.alias):
            hop = Hop(column.target, key.target, inner.table(key.alias))
            node = level.node(column.alias)
            self._links.add(node, hop, inner.node(key.alias), optional=optional)

    # conditions

    def _set_conditions(self, level: _Level) -> None:
        for alias in level.columns:
            if level.is_left(alias):
                continue
            alternatives = self._alternatives(level, alias)
            if alternatives:
                rank = self._rank(alternatives)
                self._links.conditions[level.node(alias)] = rank, alternatives

    def _set_either(self, level: _Level) -> None:
        """Find an OR that must be true, each of whose sides requires a row with conditions."""
        for node in _conjunction(level.query.where):
            if isinstance(node, WhereNode) and node.connector == "OR" and not node.negated:
                sides = [self._required_row(side, level) for side in node.children]
                required = [side for side in sides if side is not None]
                if len(required) == len(sides):
                    self._links.either[level.number] = required
                    return

    def _required_row(self, side: Any, level: _Level) -> tuple[Node, Alternatives] | None:
        """Return the node of which one side of an OR requires a row, and the row's conditions."""
        rows: list[tuple[int, Node, Alternatives]] = []
        for alias in level.columns:
            alternatives = necessary_conditions(side, alias, self._comparisons.number)
            if alternatives:
                rows.append((self._rank(alternatives), level.node(alias), alternatives))
        for node in _conjunction(side):
            for column, key, inner in self._inner_columns(node, level):
                end = self._links.best_end(inner.node(key.alias))
                if end is not None and not level.is_left(column.alias):
                    self._link_down(column, key, inner, level, optional=True)
                    rank, alternatives = self._links.conditions[end]
                    rows.append((rank, end, alternatives))
        best = max(rows, default=None)
        return None if best is None else best[1:]

    def _rank(self, alternatives: Alternatives) -> int:
        return min(
            max(self._comparisons.items[number].rank for number in numbers)
            for numbers in alternatives
        )

    def _alternatives(self, level: _Level, alias: str) -> Alternatives | None:
        """Return the conditions that a row of an alias must meet to matter."""
        query = level.query
        restriction = join_condition(query.alias_map[alias])
        if restriction is not None:
            alternatives = necessary_conditions(restriction, alias, self._comparisons.number)
            if alternatives is not None:
                return alternatives
        if not level.is_left(alias):
            return necessary_conditions(query.where, alias, self._comparisons.number)
        aliases = _branch(query, alias)
        if (
            query.group_by is not None
            or level.is_sliced
            or aliases & level.referenced
            or mentions(level.outputs, aliases)
            or may_hold_for_missing_row(query.where, aliases)
        ):
            return None
        return optional_conditions(query.where, alias, aliases, self._comparisons.number)


def _conjunction(node: Any) -> Iterable[Any]:
    """Yield the conditions all of which must be true for a WHERE clause to be true."""
    if not isinstance(node, WhereNode):
        yield node
    elif not node.negated and (node.connector == "AND" or len(node.children) == 1):
        for child in node.children:
            yield from _conjunction(child)
    else:
        yield node


def _branch(query: Query, alias: str) -> set[str]:
    """Return an alias and all that are joined to it."""
    branch = {alias}
    for joined, join in query.alias_map.items():  # in the order of the joins
        if join.parent_alias in branch:
            branch.add(joined)
    return branch


def _joined_fields(join: Any) -> tuple[tuple[Any, Any], ...]:
    """Return the pairs of fields by which a join links two tables."""
    return tuple(join.join_fields)
