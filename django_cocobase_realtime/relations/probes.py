"""Search for the key queries that changes of rows touch.

The conditions of queries are tested by an index over their values, never query by query. If the
changed row itself has no value that distinguishes queries, as a new project has none of users, one
statement per shape reads the rows at the end of a path (see ``links``), whose values do.

A query may be returned although its keys are the same, but never the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections

from ..utils.small_set import SmallSet, add_to, items, remove_from
from .conditions import Alternatives
from .dependencies import AliasReads
from .key_queries import KeyQuery
from .key_shape import KeyShape
from .links import Path
from .table_reads import Row, columns_changed, python_value

MAX_UNPROBED = 8  # queries that are returned without a statement to exclude some of them
MAX_PROBED_VALUES = 500  # values in one statement; with more, all queries of the shape are returned


@dataclass(frozen=True, slots=True)
class RowChange:
    """A change of one row of a table."""

    # label of the table's model, as in `KeyQuery.tables`
    label: str
    # primary key of the row
    key: Any
    # values by the attribute names of fields; None if the row did not exist
    before: Row | None
    # the same after the change; None if the row was deleted
    after: Row | None


def find_touched(queries: Sequence[KeyQuery], changes: Sequence[RowChange]) -> set[KeyQuery]:
    """Return the queries whose keys the changes may have changed.

    Call it after the changes were committed. For many queries, keep a `KeyQueryIndex`.
    """
    index = KeyQueryIndex()
    for query in queries:
        index.add(query)
    return index.find_touched(changes)


class KeyQueryIndex:
    """Key queries, which are found by changes of rows."""

    def __init__(self) -> None:
        # queries by their shape
        self._shapes: dict[KeyShape, _ShapeIndex] = {}
        # shapes by the labels of the tables that they read
        self._readers: dict[str, SmallSet[KeyShape]] = {}

    def __contains__(self, query: object) -> bool:
        if not isinstance(query, KeyQuery) or query.shape not in self._shapes:
            return False
        return query in self._shapes[query.shape].queries

    def __len__(self) -> int:
        return sum(len(index.queries) for index in self._shapes.values())

    def add(self, query: KeyQuery) -> None:
        """Add a query, unless the index has an equal one."""
        index = self._shapes.get(query.shape)
        if index is None:
            index = self._shapes[query.shape] = _ShapeIndex(query.shape)
            for label in query.shape.reads:
                add_to(self._readers, label, query.shape)
        index.add(query)

    def discard(self, query: KeyQuery) -> None:
        """Remove a query, if the index has it."""
        index = self._shapes.get(query.shape)
        if index is None:
            return
        index.discard(query)
        if not index.queries:
            del self._shapes[query.shape]
            for label in query.shape.reads:
                remove_from(self._readers, label, query.shape)

    def find_touched(self, changes: Sequence[RowChange]) -> set[KeyQuery]:
        """Return the queries whose keys the changes may have changed.

        Call it after the changes were committed.
        """
        touched: set[KeyQuery] = set()
        by_label: dict[str, list[RowChange]] = {}
        for change in changes:
            by_label.setdefault(change.label, []).append(change)
        probes = _Probes()
        for label, of_label in by_label.items():
            for shape in items(self._readers.get(label)):
                index = self._shapes[shape]
                for reads in shape.reads[label]:
                    touched |= index.find_touched(reads, of_label, probes)
        return touched


class _ShapeIndex:
    """The queries of one shape, by the values with which they compare columns."""

    def __init__(self, shape: KeyShape) -> None:
        self.shape = shape
        self.queries: dict[KeyQuery, None] = {}
        # by the numbers of comparisons: queries by their values
        self._by_value: dict[int, dict[Any, SmallSet[KeyQuery]]] = {
            self._leading(numbers): {}
            for of_table in shape.reads.values()
            for reads in of_table
            for alternatives in (reads.alternatives, *(path.alternatives for path in reads.paths))
            for numbers in alternatives or ()
        }

    def add(self, query: KeyQuery) -> None:
        if query not in self.queries:
            self.queries[query] = None
            for number, by_value in self._by_value.items():
                for value in query.constants[number]:
                    add_to(by_value, value, query)

    def discard(self, query: KeyQuery) -> None:
        if query in self.queries:
            del self.queries[query]
            for number, by_value in self._by_value.items():
                for value in query.constants[number]:
                    remove_from(by_value, value, query)

    def find_touched(
        self, reads: AliasReads, changes: list[RowChange], probes: _Probes
    ) -> set[KeyQuery]:
        """Return the queries that changes of one table may touch under one of its aliases."""
        rows = [
            row
            for change in changes
            if columns_changed(reads.columns, change.before, change.after)
            for row in (change.before, change.after)
            if row is not None
        ]
        if not rows:
            return set()
        touched = self._matching(reads.alternatives, rows)
        if len(touched) <= MAX_UNPROBED or not reads.paths:
            return touched
        connected: set[KeyQuery] = set()
        for path in reads.paths:
            end_rows = probes.rows_at_end(self.shape, path, rows)
            if end_rows is None:
                return touched
            connected |= self._matching(path.alternatives, end_rows)
        return touched & connected

    def _matching(self, alternatives: Alternatives | None, rows: Iterable[Row]) -> set[KeyQuery]:
        """Return the queries one of whose alternatives a row meets."""
        if alternatives is None:
            return set(self.queries)
        matching: set[KeyQuery] = set()
        for row in rows:
            for numbers in alternatives:
                matching.update(self._meeting(numbers, row))
        return matching

    def _meeting(self, numbers: tuple[int, ...], row: Row) -> Iterator[KeyQuery]:
        """Yield the queries all of whose comparisons with these numbers hold for a row."""
        leading = self._leading(numbers)
        try:
            candidates = items(self._by_value[leading].get(self._value(leading, row)))
        except Exception:  # the value is unknown
            candidates = self.queries
        for query in candidates:
            if all(number == leading or self._holds(query, number, row) for number in numbers):
                yield query

    def _holds(self, query: KeyQuery, number: int, row: Row) -> bool:
        try:
            return self._value(number, row) in query.constants[number]
        except Exception:
            return True

    def _value(self, number: int, row: Row) -> Any:
        comparison = self.shape.comparisons[number]
        return python_value(comparison.field, row[comparison.attname])

    def _leading(self, numbers: tuple[int, ...]) -> int:
        """Return the number of the comparison that distinguishes most queries."""
        return max(numbers, key=lambda number: (self.shape.comparisons[number].rank, number))


class _Probes:
    """Statements that follow paths from changed rows. Each is executed once."""

    def __init__(self) -> None:
        self._results: dict[tuple[Any, ...], list[Row] | None] = {}

    def rows_at_end(self, shape: KeyShape, path: Path, rows: list[Row]) -> list[Row] | None:
        """Return the rows at the end of a path, with the columns of its conditions.

        Returns None if there are too many changed rows, or a value is unknown.
        """
        if not path.hops:
            return rows
        connection = connections[shape.using]
        first = path.hops[0]
        try:
            values = {row[first.source.attname] for row in rows} - {None}
            prepared = [first.target.get_db_prep_value(value, connection) for value in values]
        except Exception:
            return None
        if len(prepared) > MAX_PROBED_VALUES:
            return None
        columns = {
            shape.comparisons[number].attname: shape.comparisons[number].column
            for numbers in path.alternatives
            for number in numbers
        }
        sql = _probe_sql(connection.ops.quote_name, path, columns.values(), len(prepared))
        key = (shape.using, sql, *sorted(map(repr, prepared)))
        if key not in self._results:
            results: list[Row] = []
            if prepared:
                with connection.cursor() as cursor:
                    cursor.execute(sql, prepared)
                    results = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
            self._results[key] = results
        return self._results[key]


def _probe_sql(quote: Callable[[str], str], path: Path, columns: Iterable[str], count: int) -> str:
    """Return the statement for a number of values of the first hop's column."""
    first, *others = path.hops
    tables = [f"{quote(first.table)} t1"]
    for number, hop in enumerate(others, 2):
        tables.append(
            f"{quote(hop.table)} t{number} ON "
            f"t{number - 1}.{quote(hop.source.column)} = t{number}.{quote(hop.target.column)}"
        )
    selected = ", ".join(f"t{len(path.hops)}.{quote(column)}" for column in columns)
    placeholders = ", ".join(["%s"] * count)
    return (
        f"SELECT DISTINCT {selected} FROM {' JOIN '.join(tables)} "  # noqa: S608
        f"WHERE t1.{quote(first.target.column)} IN ({placeholders})"
    )
