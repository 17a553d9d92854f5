"""Captures INSERT statements: saves, ``bulk_create``, rows of through tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

from django.db import connections
from django.db.models import Q
from django.db.models.constants import OnConflict

from ..declarations.row_reader import Row
from ..utils.transactions import acquire_write_lock, own_statements, statement_transaction
from .recorder import Op, record
from .relations import record_changed_references
from .tables import Rows, WatchedTable, key_in
from .targets import (
    WriteTarget,
    convert_returned,
    current_save,
    find_target,
    is_written_later,
    read_joined,
    read_references,
    read_written,
    row_reader,
)


def wrap_insert(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``SQLInsertCompiler.execute_sql``."""

    @wraps(original)
    def execute_sql(self: Any, returning_fields: Any = None) -> Any:
        target = find_target(self.query.get_meta().concrete_model, self.using)
        if target is None:
            return original(self, returning_fields)
        features = connections[self.using].features
        can_return = features.can_return_columns_from_insert
        if len(self.query.objs) != 1:
            can_return = features.can_return_rows_from_bulk_insert
        if not can_return:
            return _insert_without_returning(self, target, original, returning_fields)
        return _insert(self, target, returning_fields)

    return execute_sql


def _insert(compiler: Any, target: WriteTarget, returning_fields: Any) -> list[Any]:
    """Execute an INSERT that also returns the columns of images."""
    using = compiler.using
    requested = list(returning_fields or ())
    reader = row_reader(target, using)
    compiler.returning_fields = [*requested, *reader.fields]
    statements = compiler.as_sql()  # calls pre_save, before a transaction of ours is opened
    compiler.returning_fields = returning_fields
    on_conflict = compiler.query.on_conflict
    with statement_transaction(using, write_lock=on_conflict is not None):
        befores, references = _existing(compiler, target)
        returned: list[Any] = []
        with compiler.connection.cursor() as cursor:
            for sql, params in statements:
                cursor.execute(sql, params)
                returned += cursor.fetchall()
        count = len(requested)
        rows = [reader.row(values[count:]) for values in returned]
        _record_inserted(target, using, rows, befores, references)
    if not requested or on_conflict is OnConflict.IGNORE:
        return []
    return convert_returned(compiler, requested, [values[:count] for values in returned])


def _insert_without_returning(
    compiler: Any, target: WriteTarget, original: Callable[..., Any], returning_fields: Any
) -> Any:
    using, model = compiler.using, target.model
    update = compiler.query.on_conflict is OnConflict.UPDATE
    with statement_transaction(using, write_lock=update):
        befores, references = _existing(compiler, target)
        result = original(compiler, returning_fields)
        pk = model._meta.pk
        keys = [obj._get_pk_val(model._meta) for obj in compiler.query.objs]
        if returning_fields and pk in returning_fields and result:
            index = list(returning_fields).index(pk)
            keys = [row[index] for row in result]
        rows = list(read_written(target, using, (key for key in keys if key is not None)).values())
        _record_inserted(target, using, rows, befores, references)
    return result


def _record_inserted(
    target: WriteTarget,
    using: str,
    rows: list[Row],
    befores: dict[WatchedTable, Rows],
    references: Rows,
) -> None:
    own = target.own
    for table in target.tables:
        old = befores.get(table, {})
        if table is own:
            changes: Iterable[tuple[Row | None, Row | None, Op]] = [
                (old.get(identity), row, "updated" if identity in old else "created")
                for row in rows
                for identity in (table.identity_of(row),)
            ]
        else:
            changes = list(_inserted_joined(target, table, using, rows, old))
        record(table, using, changes)
    record_changed_references(target, using, references, rows)


def _inserted_joined(
    target: WriteTarget, table: WatchedTable, using: str, rows: list[Row], old: Rows
) -> Iterator[tuple[Row | None, Row | None, Op]]:
    """Yield rows in several tables of which one was inserted."""
    save = current_save(target.model)
    is_own = table.model._meta.db_table == target.model._meta.db_table
    if not is_own and save is not None and not save.raw and is_written_later(save, table):
        save.pending.setdefault(table, None)
        return
    if not is_own and (save is None or not save.raw):
        # no row of a child can exist before its parent's, which may have been updated
        keys = [table.key_of(row) for row in old.values()]
        for identity, row in read_joined(table, table.model, using, keys).items():
            yield old[identity], row, "updated"
        return
    if is_own and save is not None and table in save.pending:
        before = save.pending.pop(table)
        if before is not None:
            old = {table.identity_of(before): before}
    keys = [key_in(target.model, row) for row in rows]
    for identity, row in read_joined(table, target.model, using, keys).items():
        yield old.get(identity), row, "updated" if identity in old else "created"


def _existing(compiler: Any, target: WriteTarget) -> tuple[dict[WatchedTable, Rows], Rows]:
    """Return the rows that an INSERT ... ON CONFLICT DO UPDATE will update, locked.

    If it is the table of a many-to-many field, their references are returned, too.
    """
    using, model = compiler.using, target.model
    if compiler.query.on_conflict is not OnConflict.UPDATE:
        return {}, {}
    fields: list[Any] = [
        model._meta.get_field(f) if isinstance(f, str) else f for f in compiler.query.unique_fields
    ]
    if not fields:
        return {}, {}
    acquire_write_lock(using, model)
    own = [t for t in target.tables if t.model._meta.db_table == model._meta.db_table]
    where = Q(pk__in=[])
    for obj in compiler.query.objs:
        where |= Q(**{f.attname: getattr(obj, f.attname) for f in fields})
    with own_statements(using):
        # rows of children are found by the columns that they inherit
        befores = {
            table: table.read_where(using, where, lock=table in own)
            for table in target.tables
            if table in own or issubclass(table.model, model)
        }
        references = read_references(target, using, where) if target.related else {}
    return befores, references
