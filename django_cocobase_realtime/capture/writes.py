"""Captures every write of the ORM where its SQL is executed.

The compilers of INSERT, UPDATE and DELETE statements are wrapped: whatever manager, queryset,
relation or deletion makes a statement, it is compiled and executed there. Statements of watched
tables get a ``RETURNING`` clause, so that what is recorded is what the database wrote.

In autocommit, a transaction is opened around the statement alone, after ``pre_save`` has run, and
committed before ``post_save`` runs. Inside a transaction of the project nothing is opened. Errors
are those of the project's own statement.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import Error as DatabaseFailure
from django.db import connections, models
from django.db.models import Q
from django.db.models.constants import OnConflict
from django.db.models.deletion import Collector
from django.db.models.lookups import Exact
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLDeleteCompiler, SQLInsertCompiler, SQLUpdateCompiler
from django.db.models.sql.constants import NO_RESULTS, ROW_COUNT

from ..log.append import Transaction
from ..log.retention import rotate_epoch
from ..utils.transactions import (
    acquire_write_lock,
    is_autocommit,
    own_statements,
    statement_transaction,
)
from .recorder import Op, is_capture_disabled, log_exists, record
from .tables import (
    RelatedTable,
    Row,
    RowReader,
    WatchedTable,
    WatchedTables,
    image_columns_exist,
)

Rows = dict[Any, Row]
"""Rows by primary key."""

_watched = WatchedTables(())


def watch(tables: WatchedTables, is_own_receiver: Callable[[Any], bool]) -> None:
    """Capture writes to these tables from now on.

    ``is_own_receiver`` tells signal receivers of this app, which must not keep Django from its
    fast deletion.
    """
    global _watched, _is_own_receiver
    _watched, _is_own_receiver = tables, is_own_receiver
    _install()


def _is_own_receiver(receiver: Any) -> bool:
    return False


# what a write concerns


@dataclass(slots=True)
class _Save:
    """A save of an instance whose row is in several tables."""

    instance: models.Model
    # a fixture is being loaded: the tables of one row are written by several saves
    raw: bool
    # the model whose table is being written
    model: type[models.Model] | None = None
    # rows of tables that are written later in the same save, as they were before it
    pending: dict[WatchedTable, Row | None] = field(default_factory=dict)


class _State(threading.local):
    # whether a captured statement is being executed: statements that it causes are part of it
    is_inside = False
    # saves of multi-table instances, innermost last
    saves: tuple[_Save, ...] = ()


_state = _State()


@contextmanager
def _inside() -> Iterator[None]:
    _state.is_inside = True
    try:
        yield
    finally:
        _state.is_inside = False


@dataclass(frozen=True, slots=True)
class _Target:
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


def _target(model: type[models.Model], using: str) -> _Target | None:
    """Return what a write concerns; None if it is not captured."""
    if not _watched or _state.is_inside or is_capture_disabled():
        return None
    tables, related = _watched.showing(model), _watched.related(model)
    if not tables and not related:
        return None
    if not log_exists(using) and all(c.durable for t in tables for c in t.collections):
        return None
    if not is_autocommit(using):
        Transaction.forget_finished(using)
    outdated = [
        table for table in tables if not image_columns_exist(table, _model_of(table, model))
    ]
    if outdated:
        # a historical model in a migration, whose columns are not those of today
        _resync(outdated, using)
        tables = [table for table in tables if table not in outdated]
    return _Target(model, tables, related)


def _model_of(table: WatchedTable, written: type[models.Model]) -> type[models.Model]:
    """Return the written model if it is a historical version of the table's own model."""
    same_table = written._meta.db_table == table.model._meta.db_table
    return (
        written if same_table and written._meta.apps is not table.model._meta.apps else table.model
    )


def _resync(tables: Iterable[WatchedTable], using: str) -> None:
    """Have the subscribers fetch everything again: what was written cannot be recorded."""
    names = [c.name for table in tables for c in table.collections if c.durable]
    if names and log_exists(using):
        with own_statements(using):
            rotate_epoch(using, names)


# INSERT


def _wrap_insert(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def execute_sql(self: Any, returning_fields: Any = None) -> Any:
        target = _target(self.query.get_meta().concrete_model, self.using)
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


def _insert(compiler: Any, target: _Target, returning_fields: Any) -> list[Any]:
    """Execute an INSERT that also returns the columns of images."""
    using, model = compiler.using, target.model
    requested = list(returning_fields or ())
    needed = _needed_fields(target)
    reader = _reader(target, needed, using)
    compiler.returning_fields = [*requested, *needed]
    statements = compiler.as_sql()  # calls pre_save, before a transaction of ours is opened
    compiler.returning_fields = returning_fields
    on_conflict = compiler.query.on_conflict
    with statement_transaction(using, write_lock=on_conflict is not None):
        befores = _existing(compiler, target) if on_conflict is OnConflict.UPDATE else {}
        values: list[Any] = []
        with compiler.connection.cursor() as cursor:
            for sql, params in statements:
                cursor.execute(sql, params)
                values += cursor.fetchall()
        count = len(requested)
        rows = [reader.row(each[count:]) for each in values]
        _record_inserted(target, using, rows, befores)
    if not requested or on_conflict is OnConflict.IGNORE:
        return []
    columns = [f.get_col(model._meta.db_table) for f in requested]
    found: Any = [each[:count] for each in values]
    converters = compiler.get_converters(columns)
    if converters:
        found = compiler.apply_converters(found, converters)
    return [tuple(each) for each in found]


def _insert_without_returning(
    compiler: Any, target: _Target, original: Callable[..., Any], returning_fields: Any
) -> Any:
    using, model = compiler.using, target.model
    update = compiler.query.on_conflict is OnConflict.UPDATE
    with statement_transaction(using, write_lock=update):
        befores = _existing(compiler, target) if update else {}
        result = original(compiler, returning_fields)
        pk = model._meta.pk
        keys = [obj._get_pk_val(model._meta) for obj in compiler.query.objs]
        if returning_fields and pk in returning_fields and result:
            index = list(returning_fields).index(pk)
            keys = [row[index] for row in result]
        rows = list(_read_written(target, using, [key for key in keys if key is not None]))
        _record_inserted(target, using, rows, befores)
    return result


def _record_inserted(
    target: _Target, using: str, rows: list[Row], befores: dict[WatchedTable, Rows]
) -> None:
    own = target.own
    for table in target.tables:
        old = befores.get(table, {})
        if table is own:
            found: Iterable[tuple[Row | None, Row | None, Op]] = [
                (
                    old.get(table.key_of(row)),
                    row,
                    "updated" if table.key_of(row) in old else "created",
                )
                for row in rows
            ]
        else:
            found = list(_inserted_joined(target, table, using, rows, old))
        record(table, using, found)
    _record_related(target, using, rows)


def _inserted_joined(
    target: _Target, table: WatchedTable, using: str, rows: list[Row], old: Rows
) -> Iterator[tuple[Row | None, Row | None, Op]]:
    """Yield rows in several tables of which one was inserted."""
    save = _current_save(target.model)
    is_own = table.model._meta.db_table == target.model._meta.db_table
    if not is_own and save is not None and not save.raw and _is_written_later(save, table):
        save.pending.setdefault(table, None)
        return
    if not is_own and (save is None or not save.raw):
        return  # no row of a child can exist before its parent's
    if is_own and save is not None and table in save.pending:
        before = save.pending.pop(table)
        if before is not None:
            old = {table.key_of(before): before}
    keys = [_key_in(target.model, row) for row in rows]
    for key, row in _read_joined(table, target.model, using, keys).items():
        yield old.get(key), row, "updated" if key in old else "created"


def _existing(compiler: Any, target: _Target) -> dict[WatchedTable, Rows]:
    """Return the rows that an INSERT ... ON CONFLICT DO UPDATE will update, locked."""
    using, model = compiler.using, target.model
    fields = [
        model._meta.get_field(f) if isinstance(f, str) else f for f in compiler.query.unique_fields
    ]
    if not fields:
        return {}
    acquire_write_lock(using, model)
    where = Q(pk__in=[])
    for obj in compiler.query.objs:
        where |= Q(**{f.attname: getattr(obj, f.attname) for f in fields})
    with own_statements(using):
        return {
            table: table.read_where(using, where, lock=True)
            for table in target.tables
            if table.model._meta.db_table == model._meta.db_table
        }


# UPDATE


def _wrap_update(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def execute_sql(self: Any, result_type: Any) -> Any:
        target = _update_target(self)
        if target is None:
            return original(self, result_type)
        if target.own is None or result_type not in (ROW_COUNT, NO_RESULTS):
            return _update_by_keys(self, target, lambda: original(self, result_type))
        rows = _update(self, target, ())
        return 0 if rows is None or result_type == NO_RESULTS else len(rows)

    return execute_sql


def _wrap_update_returning(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def execute_returning_sql(self: Any, returning_fields: Any) -> Any:
        target = _update_target(self)
        if target is None:
            return original(self, returning_fields)
        if target.own is None:
            return _update_by_keys(self, target, lambda: original(self, returning_fields))
        rows = _update(self, target, returning_fields or ())
        if rows is None:
            return []
        if not returning_fields:
            return [()] * len(rows)
        columns = [f.get_col(target.model._meta.db_table) for f in returning_fields]
        found: Any = rows
        converters = self.get_converters(columns)
        if converters:
            found = self.apply_converters(found, converters)
        return [tuple(row) for row in found]

    return execute_returning_sql


def _update_target(compiler: Any) -> _Target | None:
    query = compiler.query
    model = query.get_meta().concrete_model
    target = _target(model, compiler.using)
    if not query.related_updates or _state.is_inside or is_capture_disabled():
        return target
    # fields of a parent are updated, too: by statements that belong to this one
    tables = list(target.tables) if target is not None and query.values else []
    related = list(target.related) if target is not None else []
    for parent in query.related_updates:
        of_parent = _target(parent, compiler.using)
        if of_parent is not None:
            tables += [table for table in of_parent.tables if table not in tables]
    return _Target(model, tables, related) if tables or related else None


def _update(compiler: Any, target: _Target, returning_fields: Sequence[Any]) -> list[Any] | None:
    """Execute an UPDATE that also returns the columns of images.

    Returns the columns ``returning_fields`` of each updated row; None if no statement was needed.
    """
    using, model, table = compiler.using, target.model, target.own
    assert table is not None
    connection = compiler.connection
    key = _single_key(compiler.query, table)
    plan = None if key is not _NO_KEY else _keys_query(compiler.query, model)
    needed = _needed_fields(target)
    reader = _reader(target, needed, using)
    try:
        sql, params = compiler.as_sql()
    except EmptyResultSet:
        return None
    if not sql:
        return None
    can_return = connection.features.can_return_columns_from_insert
    returns_old = can_return and table.tracked and _returns_old(connection)
    with statement_transaction(using, write_lock=table.tracked):
        befores: Rows = {}
        if table.tracked and not returns_old:
            befores = _rows_before(compiler, target, table, key, plan)
        if not can_return:
            return _execute_without_returning(compiler, target, sql, params, befores)
        quote = connection.ops.quote_name
        name = quote(model._meta.db_table)
        columns = [f"{name}.{quote(f.column)}" for f in returning_fields]
        columns += reader.qualified
        if returns_old:
            columns += [f"old.{column}" for column in reader.columns]
        with connection.cursor() as cursor:
            cursor.execute(f"{sql} RETURNING {', '.join(columns)}", params)
            found = cursor.fetchall()
        first, last = len(returning_fields), len(returning_fields) + len(reader.columns)
        afters = [reader.row(each[first:last]) for each in found]
        if returns_old:
            olds = [reader.row(each[last:]) for each in found]
            changes = _paired(table, zip(olds, afters, strict=True))
        else:
            changes = _matched(compiler.query, table, befores, afters)
        record(table, using, changes)
        _record_related(target, using, afters)
        return [each[:first] for each in found]


def _execute_without_returning(
    compiler: Any, target: _Target, sql: str, params: Any, befores: Rows
) -> list[Any]:
    """Execute an UPDATE on a database without RETURNING, and read the rows again."""
    using, table = compiler.using, target.own
    assert table is not None
    with compiler.connection.cursor() as cursor:
        cursor.execute(sql, params)
        count = cursor.rowcount
    with own_statements(using):
        afters = list(table.read(using, befores).values())
    record(table, using, _matched(compiler.query, table, befores, afters))
    if count != len(afters):
        _resync([table], using)  # other rows were updated than those that were read before
    return [()] * count


def _paired(
    table: WatchedTable, pairs: Iterable[tuple[Row, Row]]
) -> Iterator[tuple[Row | None, Row | None, Op]]:
    for before, after in pairs:
        if table.key_of(before) == table.key_of(after):
            yield before, after, "updated"
        else:  # another document: ids do not change
            yield before, None, "deleted"
            yield None, after, "created"


def _matched(
    query: Any, table: WatchedTable, befores: Rows, afters: list[Row]
) -> Iterator[tuple[Row | None, Row | None, Op]]:
    """Yield rows after an update with the row before; None if it was not read."""
    keys = {table.key_of(row) for row in afters}
    moves = any(f in table.model._meta.pk_fields for f, _, _ in query.values)
    if moves:
        for key, before in befores.items():
            if key not in keys:
                yield before, None, "deleted"
    for after in afters:
        key = table.key_of(after)
        created = moves and key not in befores
        yield befores.get(key), after, "created" if created else "updated"


_NO_KEY = object()


def _single_key(query: Any, table: WatchedTable) -> Any:
    """Return the primary key that a statement is limited to; `_NO_KEY` for other conditions."""
    children = query.where.children
    if len(children) != 1 or query.where.negated or len(table.model._meta.pk_fields) != 1:
        return _NO_KEY
    lookup = children[0]
    if type(lookup) is not Exact or hasattr(lookup.rhs, "as_sql"):
        return _NO_KEY
    target = getattr(lookup.lhs, "target", None)
    if (
        target is None
        or not target.primary_key
        or target.model._meta.db_table != (table.model._meta.db_table)
    ):
        return _NO_KEY
    return lookup.rhs


def _keys_query(query: Any, model: type[models.Model]) -> Any:
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


def _rows_before(compiler: Any, target: _Target, table: WatchedTable, key: Any, plan: Any) -> Rows:
    """Return the rows that a statement will write, as they are now, locked until the end."""
    using = compiler.using
    acquire_write_lock(using, target.model)
    try:
        with own_statements(using):
            if key is _NO_KEY:
                return _select_by_plan(table, using, plan)
            row = table.read_one(using, key, _lock_clause(compiler, table, key))
    except DatabaseFailure:
        raise
    except Exception:  # the project's own statement raises it in its own words
        return {}
    return {} if row is None else {table.key_of(row): row}


def _select_by_plan(table: WatchedTable, using: str, plan: Any) -> Rows:
    keys = [
        tuple(row) if len(row) > 1 else row[0]
        for row in plan.get_compiler(using).results_iter(tuple_expected=True)
    ]
    return table.read(using, dict.fromkeys(keys), lock=True)


def _lock_clause(compiler: Any, table: WatchedTable, key: Any) -> str:
    """Return the lock that PostgreSQL's own UPDATE would take.

    ``FOR UPDATE`` only if a unique column changes: it conflicts with foreign keys that refer to
    the row, and would let two transactions wait for each other that do not without this app.
    """
    if compiler.connection.vendor != "postgresql":
        return ""
    unique = [(f, value) for f, _, value in compiler.query.values if _is_unique(f)]
    if not unique:
        return "FOR NO KEY UPDATE"
    row = table.read_one(compiler.using, key)
    for f, value in unique:
        current = None if row is None else row.get(str(f.attname))
        if hasattr(value, "resolve_expression") or value != current:
            return "FOR UPDATE"
    return "FOR NO KEY UPDATE"


def _is_unique(field: Any) -> bool:
    meta = field.model._meta
    if field.unique:
        return True
    groups = [set(names) for names in meta.unique_together]
    groups += [set(c.fields) for c in meta.total_unique_constraints]
    return any(field.name in names for names in groups)


def _returns_old(connection: Any) -> bool:
    """Return whether ``RETURNING`` can also return the row before: PostgreSQL 18."""
    return bool(connection.vendor == "postgresql" and connection.pg_version >= 180000)


def _update_by_keys(compiler: Any, target: _Target, execute: Callable[[], Any]) -> Any:
    """Execute an UPDATE of rows that are in several tables; read them before and after."""
    using, model = compiler.using, target.model
    plan = _keys_query(compiler.query, model)
    with statement_transaction(using, write_lock=True):
        befores: dict[WatchedTable, Rows] = {}
        keys: list[Any] = []
        acquire_write_lock(using, model)
        try:
            with own_statements(using):
                keys = _keys_of(plan, using)
                for table in target.tables:
                    befores[table] = _read_joined(table, model, using, keys, lock=True)
        except DatabaseFailure:
            raise
        except Exception:  # the project's own statement raises it in its own words
            befores = {}
        with _inside():  # statements for columns of parents belong to this one
            result = execute()
        save = _current_save(model)
        for table, rows in befores.items():
            if (
                save is not None
                and not save.raw
                and table.model._meta.db_table != (model._meta.db_table)
                and _is_written_later(save, table)
            ):
                for row in rows.values():
                    save.pending.setdefault(table, row)
                continue
            before = rows
            if save is not None and table in save.pending:
                first = save.pending.pop(table)
                before = {} if first is None else {table.key_of(first): first}
            with own_statements(using):
                afters = table.read(using, rows)
            record(table, using, [(before.get(k), after, "updated") for k, after in afters.items()])
    return result


def _keys_of(plan: Any, using: str) -> list[Any]:
    rows = plan.get_compiler(using).results_iter(tuple_expected=True)
    return list(dict.fromkeys(tuple(row) if len(row) > 1 else row[0] for row in rows))


# DELETE


def _wrap_delete(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def execute_sql(self: Any, result_type: Any = None, *args: Any, **kwargs: Any) -> Any:
        target = _target(self.query.get_meta().concrete_model, self.using)
        if target is None:
            return original(self, result_type, *args, **kwargs)
        can_return = self.connection.features.can_return_columns_from_insert
        plain = target.own is not None or not target.tables
        if can_return and plain and result_type in (ROW_COUNT, NO_RESULTS):
            return _delete(self, target, result_type)
        return _delete_by_keys(self, target, lambda: original(self, result_type, *args, **kwargs))

    return execute_sql


def _delete(compiler: Any, target: _Target, result_type: Any) -> Any:
    """Execute a DELETE that also returns the columns of images."""
    using = compiler.using
    needed = _needed_fields(target)
    reader = _reader(target, needed, using)
    try:
        sql, params = compiler.as_sql()
    except EmptyResultSet:
        return None
    with statement_transaction(using, write_lock=False):
        with compiler.connection.cursor() as cursor:
            cursor.execute(f"{sql} RETURNING {', '.join(reader.qualified)}", params)
            rows = [reader.row(each) for each in cursor.fetchall()]
        for table in target.tables:
            record(table, using, [(row, None, "deleted") for row in rows])
        _record_related(target, using, rows)
    return len(rows) if result_type == ROW_COUNT else None


def _delete_by_keys(compiler: Any, target: _Target, execute: Callable[[], Any]) -> Any:
    """Execute a DELETE of rows that are in several tables; read them before."""
    using, model = compiler.using, target.model
    plan = _keys_query(compiler.query, model)
    with statement_transaction(using, write_lock=True):
        befores: dict[WatchedTable, Rows] = {}
        related_rows: list[Row] = []
        acquire_write_lock(using, model)
        try:
            with own_statements(using):
                keys = _keys_of(plan, using)
                for table in target.tables:
                    befores[table] = _read_joined(table, model, using, keys, lock=True)
                if target.related:
                    related_rows = _read_through(target, using, keys)
        except DatabaseFailure:
            raise
        except Exception:  # the project's own statement raises it in its own words
            befores = {}
        result = execute()
        for table, rows in befores.items():
            record(table, using, [(row, None, "deleted") for row in rows.values()])
        _record_related(target, using, related_rows)
    return result


# many-to-many


def _record_related(target: _Target, using: str, rows: list[Row]) -> None:
    """Record the rows whose many-to-many field changed with rows of its through table."""
    for related in target.related:
        keys = dict.fromkeys(row[related.source] for row in rows if _concerns(related, row, using))
        if not keys:
            continue
        table = related.table
        with own_statements(using):
            found = table.read_where(using, Q(**{f"{related.target}__in": list(keys)}))
        changed = (related.field,)
        record(table, using, [(row, row, "updated") for row in found.values()], changed)


def _concerns(related: RelatedTable, row: Row, using: str) -> bool:
    if row.get(related.source) is None:
        return False
    if related.content_type is None:
        return True
    from django.contrib.contenttypes.models import ContentType

    name, model = related.content_type
    with own_statements(using):
        content_type = ContentType.objects.db_manager(using).get_for_model(
            model, for_concrete_model=False
        )
    return bool(row.get(name) == content_type.pk)


def _read_through(target: _Target, using: str, keys: list[Any]) -> list[Row]:
    names = _through_names(target)
    queryset = models.QuerySet(target.model, using=using).filter(pk__in=keys)
    return [dict(zip(names, values, strict=True)) for values in queryset.values_list(*names)]


def _through_names(target: _Target) -> list[str]:
    names: dict[str, None] = {}
    for related in target.related:
        names[related.source] = None
        if related.content_type is not None:
            names[related.content_type[0]] = None
    return list(names)


# columns and rows


def _needed_fields(target: _Target) -> list[Any]:
    """Return the fields of the written table that must be returned."""
    own, meta = target.own, target.model._meta
    fields: dict[Any, None] = dict.fromkeys(() if own is None else own.fields)
    if own is None:
        fields |= dict.fromkeys(meta.pk_fields)
    by_attname = {str(f.attname): f for f in meta.local_concrete_fields}
    fields |= dict.fromkeys(by_attname[n] for n in _through_names(target) if n in by_attname)
    return list(fields)


def _reader(target: _Target, fields: list[Any], using: str) -> RowReader:
    own = target.own
    if own is not None and len(fields) == len(own.fields):
        return own.reader(using)
    raw = frozenset() if own is None else own.raw_names
    return RowReader(fields, raw, target.model, using)


def _key_in(model: type[models.Model], row: Row) -> Any:
    values = tuple(row[str(f.attname)] for f in model._meta.pk_fields)
    return values[0] if len(values) == 1 else values


def _read_written(target: _Target, using: str, keys: list[Any]) -> Iterator[Row]:
    """Yield the columns that `_needed_fields` names of rows that were written."""
    names = [str(f.attname) for f in _needed_fields(target)]
    with own_statements(using):
        queryset = models.QuerySet(target.model, using=using).filter(pk__in=keys)
        rows = list(queryset.values_list(*names))
    for values in rows:
        yield dict(zip(names, values, strict=True))


def _read_joined(
    table: WatchedTable,
    written: type[models.Model],
    using: str,
    keys: list[Any],
    *,
    lock: bool = False,
) -> Rows:
    """Return the rows of a table that show the rows with these keys in the written table."""
    if not keys:
        return {}
    with own_statements(using):
        if table.model._meta.db_table == written._meta.db_table:
            return table.read(using, keys, lock=lock)
        parents = {parent._meta.db_table: parent for parent in table.model._meta.all_parents}
        parent = parents.get(written._meta.db_table)
        if parent is not None:
            return table.read_where(using, Q(**{f"{table.path_from(parent)}__in": keys}), lock=lock)
        # a parent of the written model: its rows are found through the written ones
        path = "__".join(
            link.join_field.name for link in written._meta.get_path_to_parent(table.model)
        )
        queryset = models.QuerySet(written, using=using).filter(pk__in=keys)
        return table.read(using, list(queryset.values_list(path, flat=True)), lock=lock)


# saves of multi-table instances


def _current_save(model: type[models.Model]) -> _Save | None:
    """Return the save that is writing the model's table, if its rows are in several tables."""
    save = _state.saves[-1] if _state.saves else None
    if save is None or save.model is None:
        return None
    return save if save.model._meta.db_table == model._meta.db_table else None


def _is_written_later(save: _Save, table: WatchedTable) -> bool:
    """Return whether the save also writes the table itself, after the parent's."""
    concrete = type(save.instance)._meta.concrete_model
    return concrete is not None and issubclass(concrete, table.model)


def _wrap_save_base(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def save_base(self: models.Model, raw: bool = False, *args: Any, **kwargs: Any) -> Any:
        concrete = type(self)._meta.concrete_model
        if not _watched or concrete is None or not (raw or concrete._meta.parents):
            return original(self, raw, *args, **kwargs)
        outer = _state.saves
        _state.saves = (*outer, _Save(self, raw))
        try:
            return original(self, raw, *args, **kwargs)
        finally:
            _state.saves = outer

    return save_base


def _wrap_save_table(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def _save_table(
        self: models.Model,
        raw: bool = False,
        cls: Any = None,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Any = None,
    ) -> Any:
        arguments = (raw, cls, force_insert, force_update, using, update_fields)
        save = _state.saves[-1] if _state.saves else None
        if save is None or save.instance is not self:
            return original(self, *arguments)
        save.model = cls
        try:
            result = original(self, *arguments)
            if cls is type(self)._meta.concrete_model and using is not None:
                _record_pending(save, using)
            return result
        finally:
            save.model = None

    return _save_table


def _record_pending(save: _Save, using: str) -> None:
    """Record rows of which the save wrote a parent's table alone."""
    for table, before in save.pending.items():
        if before is not None:
            with own_statements(using):
                afters = table.read(using, [table.key_of(before)])
            record(table, using, [(before, after, "updated") for after in afters.values()])
    save.pending.clear()


# deletions


def _wrap_has_signal_listeners(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def _has_signal_listeners(self: Any, model: type[models.Model]) -> bool:
        """Ignore receivers of this app: rows without other listeners can be deleted fast."""
        if not original(self, model):
            return False
        signals = (models.signals.pre_delete, models.signals.post_delete)
        return any(
            not _is_own_receiver(receiver)
            for signal in signals
            for receivers in signal._live_receivers(model)
            for receiver in receivers
        )

    return _has_signal_listeners


_is_installed = False


def _install() -> None:
    global _is_installed
    if _is_installed:
        return
    _is_installed = True
    wrappers: list[tuple[Any, str, Callable[..., Any]]] = [
        (SQLInsertCompiler, "execute_sql", _wrap_insert),
        (SQLUpdateCompiler, "execute_sql", _wrap_update),
        (SQLUpdateCompiler, "execute_returning_sql", _wrap_update_returning),
        (SQLDeleteCompiler, "execute_sql", _wrap_delete),
        (models.Model, "save_base", _wrap_save_base),
        (models.Model, "_save_table", _wrap_save_table),
        (Collector, "_has_signal_listeners", _wrap_has_signal_listeners),
    ]
    for owner, name, wrap in wrappers:
        original = getattr(owner, name, None)
        if original is not None:
            setattr(owner, name, wrap(original))
