"""Find the watched tables that a statement concerns, by the table that it writes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connections, models
from django.db.models import Q, QuerySet
from django.db.models.sql import Query

from ..declarations.row_reader import Row, RowReader
from ..declarations.serialization import raw_column
from ..log.append import Transaction
from ..log.retention import rotate_epoch
from ..utils.transactions import is_autocommit, own_statements
from .recorder import is_capture_disabled, log_exists
from .tables import (
    RelatedTable,
    Rows,
    WatchedTable,
    WatchedTables,
    distinct,
    identified,
    image_columns_exist,
    in_parts,
)
from .triggers import logs_by_triggers


@dataclass(slots=True)
class TableSave:
    """A save of an instance whose row is in several tables."""

    instance: models.Model
    # a fixture is being loaded: the tables of one row are written by several saves
    raw: bool
    # the model whose table is being written
    model: type[models.Model] | None = None
    # rows of tables that are written later in the same save, as they were before it
    pending: dict[WatchedTable, Row | None] = field(default_factory=dict)
    # database tables that were updated, whose rows are locked therefore
    written: set[str] = field(default_factory=set)


class Watched:
    """The tables that are captured; replaced when the setting changes."""

    tables = WatchedTables(())


watched = Watched()


class CaptureState(threading.local):
    """The writes that this thread is executing."""

    # whether a captured statement is being executed: statements that it causes are part of it
    is_inside = False
    # saves of multi-table instances, and of fixtures, innermost last
    saves: tuple[TableSave, ...] = ()


state = CaptureState()


@contextmanager
def inside_captured_statement() -> Iterator[None]:
    """Do not capture the statements that a captured one executes itself."""
    state.is_inside = True
    try:
        yield
    finally:
        state.is_inside = False


@dataclass(frozen=True, slots=True)
class WriteTarget:
    """The watched tables that a write to one model's table concerns."""

    model: type[models.Model]
    # tables whose rows show columns of the model's table
    tables: list[WatchedTable]
    # tables whose many-to-many field is kept in the model's table
    related: list[RelatedTable]

    @property
    def own(self) -> WatchedTable | None:
        """The only watched table, if its rows are in the written table alone."""
        if len(self.tables) != 1 or self.tables[0].is_joined:
            return None
        table = self.tables[0]
        return table if table.model._meta.db_table == self.model._meta.db_table else None

    @property
    def is_single(self) -> bool:
        """Whether the written table has all columns that are needed."""
        if self.tables:
            return self.own is not None
        local = {str(f.attname) for f in self.model._meta.local_concrete_fields}
        return not self.model._meta.parents and local.issuperset(reference_names(self))

    @property
    def all_tables(self) -> list[WatchedTable]:
        """The watched tables, and those whose many-to-many field is concerned."""
        return [*self.tables, *(related.table for related in self.related)]


def find_target(model: type[models.Model], using: str) -> WriteTarget | None:
    """Return what a write concerns; None if it is not captured."""
    if not watched.tables or state.is_inside or is_capture_disabled():
        return None
    tables, related = watched.tables.showing(model), watched.tables.related(model)
    if not tables and not related:
        return None
    if watched.tables.has_triggers:
        tables = [table for table in tables if not _logs_by_triggers(table, using)]
        related = [relation for relation in related if not _logs_by_triggers(relation.table, using)]
        if not tables and not related:
            return None
    if connections[using].needs_rollback:
        return None  # the transaction is broken: Django refuses the statement
    if not log_exists(using) and all(c.durable for t in tables for c in t.collections):
        return None
    if not is_autocommit(using):
        Transaction.forget_finished(using)
    outdated = [
        table for table in tables if not image_columns_exist(table, _model_of(table, model))
    ]
    if outdated:
        # a historical model in a migration, whose columns are not those of today
        resync(outdated, using)
        tables = [table for table in tables if table not in outdated]
    return WriteTarget(model, tables, related)


def _logs_by_triggers(table: WatchedTable, using: str) -> bool:
    return table.by_triggers and all(
        collection.database == using and logs_by_triggers(collection)
        for collection in table.collections
    )


def announced_by(model: type[models.Model], using: str) -> list[str]:
    """Return the streams that triggers write to if the model's table is written."""
    if not watched.tables.has_triggers or state.is_inside:
        return []
    tables = dict.fromkeys(watched.tables.showing(model))
    tables |= dict.fromkeys(related.table for related in watched.tables.related(model))
    return [c.stream for t in tables if _logs_by_triggers(t, using) for c in t.collections]


def _model_of(table: WatchedTable, written: type[models.Model]) -> type[models.Model]:
    """Return the written model if it is a historical version of the table's own model."""
    same_table = written._meta.db_table == table.model._meta.db_table
    return (
        written if same_table and written._meta.apps is not table.model._meta.apps else table.model
    )


def can_return_rows(connection: Any) -> bool:
    """Return whether UPDATE and DELETE statements of the connection may have ``RETURNING``.

    MariaDB has it for INSERT, and Oracle has another syntax.
    """
    can_insert = connection.features.can_return_columns_from_insert
    return bool(can_insert and connection.vendor in ("postgresql", "sqlite"))


def resync(tables: Iterable[WatchedTable], using: str) -> None:
    """Have the subscribers fetch everything again: what was written cannot be recorded."""
    names = [c.stream for table in tables for c in table.collections if c.durable]
    if names and log_exists(using):
        with own_statements(using):
            rotate_epoch(using, names)


def current_save(model: type[models.Model]) -> TableSave | None:
    """Return the save that is writing the model's table, if its rows are in several tables."""
    save = state.saves[-1] if state.saves else None
    if save is None or save.model is None:
        return None
    return save if save.model._meta.db_table == model._meta.db_table else None


def is_written_later(save: TableSave, table: WatchedTable) -> bool:
    """Return whether the save also writes the table itself, after the parent's."""
    concrete = type(save.instance)._meta.concrete_model
    return concrete is not None and issubclass(concrete, table.model)


def needed_fields(target: WriteTarget) -> list[Any]:
    """Return the fields of the written table that must be returned."""
    own, meta = target.own, target.model._meta
    fields: dict[Any, None] = dict.fromkeys(() if own is None else own.fields)
    if own is None:
        fields |= dict.fromkeys(meta.pk_fields)
    by_attname = {str(f.attname): f for f in meta.local_concrete_fields}
    fields |= dict.fromkeys(by_attname[n] for n in reference_names(target) if n in by_attname)
    return list(fields)


def reference_names(target: WriteTarget) -> list[str]:
    """Return the attnames of the references of a through table that are needed."""
    return sorted({name for related in target.related for name in related.references})


def row_reader(target: WriteTarget, using: str) -> RowReader:
    """Return the reader of the fields of the written table that must be returned."""
    own = target.own
    if own is not None and not target.related:
        return own.reader(using)
    fields = needed_fields(target)
    if own is not None and len(fields) == len(own.fields):
        return own.reader(using)
    raw = frozenset() if own is None else own.raw_names
    return RowReader(fields, raw, target.model, using)


def read_written(target: WriteTarget, using: str, keys: Iterable[Any]) -> Rows:
    """Return the columns that `needed_fields` names of the rows with these keys."""
    raw = frozenset() if target.own is None else target.own.raw_names
    columns = {
        str(f.attname): raw_column(models.F(str(f.attname)), True) if f.name in raw else f.attname
        for f in needed_fields(target)
    }
    rows: Rows = {}
    for part in in_parts(list(keys)):
        rows |= _read_columns(target.model, using, Q(pk__in=part), columns)
    return rows


def read_references(target: WriteTarget, using: str, where: Q) -> Rows:
    """Return keys and references of the rows of a through table that match a condition."""
    keys = (str(f.attname) for f in target.model._meta.pk_fields)
    columns = {name: name for name in (*keys, *reference_names(target))}
    return _read_columns(target.model, using, where, columns)


def _read_columns(model: type[models.Model], using: str, where: Q, columns: dict[str, Any]) -> Rows:
    """Return columns of the rows that match a condition; ``columns`` are by attname."""
    queryset: Any = QuerySet(model, using=using).filter(where).order_by()
    with own_statements(using):
        selected = list(queryset.values_list(*columns.values()))
    rows = (dict(zip(columns, values, strict=True)) for values in selected)
    return identified(model, rows)


def lock_rows(
    model: type[models.Model], using: str, keys: list[Any], *, no_key: bool = False
) -> None:
    """Lock rows of one table as the statement that follows will do.

    ``no_key``: take the weaker lock of an UPDATE that leaves all unique columns as they are, which
    does not conflict with foreign keys that refer to the row.
    """
    features = connections[using].features
    if not features.has_select_for_update:
        return
    no_key = no_key and features.has_select_for_no_key_update
    with own_statements(using):
        for part in in_parts(keys):
            queryset: Any = QuerySet(model, using=using).filter(pk__in=part).order_by("pk")
            list(queryset.select_for_update(no_key=no_key).values_list("pk", flat=True))


def read_joined(
    table: WatchedTable, written: type[models.Model], using: str, keys: list[Any]
) -> Rows:
    """Return the rows of a table that show the rows with these keys in the written table."""
    rows: Rows = {}
    parents = {parent._meta.db_table: parent for parent in table.model._meta.all_parents}
    parent = parents.get(written._meta.db_table)
    with own_statements(using):
        if table.model._meta.db_table == written._meta.db_table:
            return table.read(using, keys)
        for part in in_parts(keys):
            if parent is not None:
                rows |= table.read_where(using, Q(**{f"{table.path_from(parent)}__in": part}))
            elif issubclass(written, table.model):
                rows |= table.read(using, keys_in_parent(written, table.model, using, part))
            else:  # another child of a parent of the written model, which is written with it
                for shared in set(parents.values()) & set(written._meta.all_parents):
                    keys_of_parent = keys_in_parent(written, shared, using, part)
                    path = table.path_from(shared)
                    rows |= table.read_where(using, Q(**{f"{path}__in": keys_of_parent}))
    return rows


def keys_in_parent(
    model: type[models.Model], parent: type[models.Model], using: str, keys: Sequence[Any]
) -> list[Any]:
    """Return the primary keys of the parents' rows that belong to rows of a child's table."""
    links = model._meta.get_path_to_parent(parent)
    path = "__".join(link.join_field.name for link in links)
    queryset: Any = QuerySet(model, using=using)
    with own_statements(using):
        return [
            key
            for part in in_parts(keys)
            for key in queryset.filter(pk__in=part).values_list(path, flat=True)
        ]


def convert_returned(compiler: Any, fields: Sequence[Any], rows: Any) -> list[tuple[Any, ...]]:
    """Return rows with the columns ``fields``, converted as the statement's caller expects."""
    converters = compiler.get_converters(
        [f.get_col(compiler.query.get_meta().db_table) for f in fields]
    )
    converted = compiler.apply_converters(rows, converters) if converters else rows
    return [tuple(values) for values in converted]


def keys_query(query: Any, model: type[models.Model]) -> Any:
    """Return a query for the primary keys of the rows that a statement will write."""
    keys = query.chain(klass=Query)
    keys.select_related = False
    keys.clear_ordering(force=True)
    keys.extra = {}
    keys.select = ()
    keys.default_cols = False
    keys.set_annotation_mask(())
    keys.add_fields([f.name for f in model._meta.pk_fields])
    return keys


def run_keys_query(plan: Any, using: str) -> list[Any]:
    """Return the primary keys that a query of `keys_query` finds, each once."""
    rows = plan.get_compiler(using).results_iter(tuple_expected=True)
    return distinct(tuple(row) if len(row) > 1 else row[0] for row in rows)
