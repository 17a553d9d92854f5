"""The check of the indexes that the option ``orders`` of a collection needs.

Indexes, unique constraints and keys are those of the models. If the database may be queried, it is
asked whether an index must name a collation or the place of nulls; otherwise the models decide.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from django.core.checks import CheckMessage
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, models
from django.db.models import F
from django.db.models.expressions import OrderBy
from django.db.models.functions import Collate

from ..declarations.collection import Collection
from ..declarations.registry import registry
from ..filters.order import Order, parse_order
from ..filters.orm_order import SortColumn, sort_columns
from .base import warning

MAX_NAME = 30  # characters of the name of an index


class IndexColumn(NamedTuple):
    """A column of an index, or one that an index needs."""

    # name of the field; None for an expression that no order consists of
    name: str | None
    descending: bool = False
    # whether nulls are lowest: first if ascending, and last if descending
    nulls_lowest: bool = False
    # collation, if it is not that of the column
    collation: str | None = None


def check_indexes(databases: Container[str]) -> Iterator[CheckMessage]:
    """Name the index that is missing for each of the orders that clients use.

    ``databases`` are those that may be queried.
    """
    for collection in registry:
        if not collection.orders or not collection.concrete_model._meta.managed:
            continue
        declared = collection.database not in databases
        if not declared and not _has_tables(collection):
            continue
        for text in collection.orders:
            order = parse_order(text, collection.schema, collection.sortable)
            yield from _check_order(collection, order, declared=declared)


def _has_tables(collection: Collection) -> bool:
    tables = connections[collection.database].introspection.table_names()
    return all(model._meta.db_table in tables for model in collection.tables)


def _check_order(collection: Collection, order: Order, *, declared: bool) -> Iterator[CheckMessage]:
    using = collection.database
    columns = sort_columns(collection.concrete_model, order, using, declared=declared)
    model = columns[0].field.model
    start = f"Collection {collection.name!r}: no index serves the order {str(order)!r}"
    if any(column.field.model is not model for column in columns):
        yield warning(
            109,
            f"{start}, whose fields are in the tables of several models.",
            "All matching rows are read for the first few. Sort by fields of one table.",
        )
        return
    needed = [IndexColumn(c.field.name, c.descending, c.needs_nulls, c.collation) for c in columns]
    filtered = {
        *(collection.filters or ()),
        *(collection.permission_fields or ()),
        collection.project_field,
    }
    if not any(serves(index, needed, filtered) for index in indexes_of(model, using)):
        yield warning(
            109,
            f"{start}. All matching rows are read for the first few.",
            f"Add this to Meta.indexes of {model._meta.label}, and migrate: "
            f"{index_source(model, columns)} If lists are always filtered by a field, name it "
            "before the others.",
        )


def serves(
    index: Sequence[IndexColumn], needed: Sequence[IndexColumn], filtered: Container[str | None]
) -> bool:
    """Return whether rows can be read from an index in an order, or in the opposite direction.

    The index may begin with fields in ``filtered``: rows with the same values in these are sorted
    by the rest.
    """
    if len(index) < len(needed):
        return False
    pairs = list(zip(index, needed, strict=False))
    is_backwards = pairs[0][0].descending != pairs[0][1].descending
    if all(
        # read backwards, an index has nulls lowest if it has them lowest otherwise
        column._replace(descending=column.descending != is_backwards) == other
        for column, other in pairs
    ):
        return True
    return index[0].name in filtered and serves(index[1:], needed, filtered)


def indexes_of(model: type[models.Model], using: str) -> Iterator[list[IndexColumn]]:
    """Yield the columns of each index of a model's table that holds all rows, in order."""
    for columns in _declared_indexes(model):
        key = model._meta.pk
        if connections[using].vendor == "sqlite" and key.db_type(connections[using]) == "integer":
            # SQLite's indexes end with the key of the row
            columns = [*columns, IndexColumn(key.name)]
        yield columns


def _declared_indexes(model: type[models.Model]) -> Iterator[list[IndexColumn]]:
    meta = model._meta
    yield _of_names(field.name for field in meta.pk_fields)
    fields: Iterable[Any] = meta.local_concrete_fields
    for field in fields:
        if field.unique or field.db_index:
            yield _of_names([field.name])
    for names in meta.unique_together:
        yield _of_names(names)
    for index in meta.indexes:
        # of the types of indexes, only B-trees have an order
        is_tree = index.suffix in (models.Index.suffix, "btree")
        if is_tree and index.condition is None and not index.opclasses:
            yield _of_names(index.fields) or [_of_expression(model, e) for e in index.expressions]
    for constraint in meta.constraints:
        if isinstance(constraint, models.UniqueConstraint) and constraint.condition is None:
            expressions = constraint.expressions
            yield _of_names(constraint.fields) or [_of_expression(model, e) for e in expressions]


def _of_names(names: Iterable[str]) -> list[IndexColumn]:
    return [IndexColumn(name.removeprefix("-"), name.startswith("-")) for name in names]


def _of_expression(model: type[models.Model], expression: Any) -> IndexColumn:
    descending, nulls_lowest, collation = False, False, None
    if isinstance(expression, OrderBy):
        descending = expression.descending
        nulls_lowest = bool(expression.nulls_last if descending else expression.nulls_first)
        expression = expression.expression
    if isinstance(expression, Collate):
        collation = expression.collation  # type: ignore[attr-defined]
        (expression,) = expression.get_source_expressions()
    name = None
    if type(expression) is F:
        with suppress(FieldDoesNotExist):  # a relation to another table, which no index can have
            name = model._meta.get_field(expression.name).name  # type: ignore[attr-defined]
    return IndexColumn(name, descending, nulls_lowest, collation)


def index_source(model: type[models.Model], columns: Sequence[SortColumn]) -> str:
    """Return the declaration of an index that serves an order."""
    names = [column.field.name for column in columns]
    name = "_".join([str(model._meta.model_name), *names])[:MAX_NAME].rstrip("_")
    if any(column.needs_nulls or column.collation for column in columns):
        parts = [_expression_source(column) for column in columns]
        return f'models.Index({", ".join(parts)}, name="{name}")'
    fields = ", ".join(f'"{"-" if c.descending else ""}{c.field.name}"' for c in columns)
    return f'models.Index(fields=[{fields}], name="{name}")'


def _expression_source(column: SortColumn) -> str:
    source = f'F("{column.field.name}")'
    if column.collation is not None:
        source = f'Collate("{column.field.name}", "{column.collation}")'
    direction = "desc" if column.descending else "asc"
    nulls = ""
    if column.needs_nulls:
        nulls = "nulls_last=True" if column.descending else "nulls_first=True"
    return f"{source}.{direction}({nulls})"
