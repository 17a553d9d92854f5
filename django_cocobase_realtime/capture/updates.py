"""Captures UPDATE statements: saves, ``QuerySet.update``, ``bulk_update``, SET_NULL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import Error as DatabaseFailure
from django.db import connections, models
from django.db.models import Q, QuerySet
from django.db.models.lookups import Exact, IntegerFieldExact
from django.db.models.sql.constants import NO_RESULTS, ROW_COUNT

from ..declarations.row_reader import Row
from ..declarations.serialization import has_custom_key
from ..utils.transactions import acquire_write_lock, own_statements, statement_transaction
from .concurrency import check_on_commit
from .recorder import Op, record
from .relations import record_changed_references
from .tables import MAX_KEYS, Rows, WatchedTable, identified, key_in
from .targets import (
    WriteTarget,
    can_return_rows,
    convert_returned,
    current_save,
    find_target,
    inside_captured_statement,
    is_written_later,
    keys_in_parent,
    keys_query,
    lock_rows,
    needed_fields,
    read_joined,
    read_references,
    read_written,
    resync,
    row_reader,
    run_keys_query,
)


def wrap_update(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``SQLUpdateCompiler.execute_sql``."""

    @wraps(original)
    def execute_sql(self: Any, result_type: Any) -> Any:
        target = _update_target(self)
        if target is None:
            return original(self, result_type)
        if not target.is_single or result_type not in (ROW_COUNT, NO_RESULTS):
            return _update_by_keys(self, target, lambda: original(self, result_type))
        rows = _update(self, target, ())
        return 0 if rows is None or result_type == NO_RESULTS else len(rows)

    return execute_sql


def wrap_update_returning(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``SQLUpdateCompiler.execute_returning_sql`` of Django 6.0 and newer."""

    @wraps(original)
    def execute_returning_sql(self: Any, returning_fields: Any) -> Any:
        target = _update_target(self)
        if target is None:
            return original(self, returning_fields)
        if not target.is_single:
            return _update_by_keys(self, target, lambda: original(self, returning_fields))
        rows = _update(self, target, returning_fields or ())
        if rows is None:
            return []
        if not returning_fields:
            return [()] * len(rows)
        return convert_returned(self, returning_fields, rows)

    return execute_returning_sql


def _update_target(compiler: Any) -> WriteTarget | None:
    query = compiler.query
    model = query.get_meta().concrete_model
    target = find_target(model, compiler.using)
    if target is None and not query.related_updates:
        return None
    written = {str(f.attname) for f, _, _ in query.values}
    tables = list(target.tables) if target is not None and query.values else []
    related = list(target.related) if target is not None else []
    # fields of a parent are updated, too: by statements that belong to this one
    for parent, values in query.related_updates.items():
        of_parent = find_target(parent, compiler.using)
        if of_parent is not None:
            written |= {str(f.attname) for f, _, _ in values}
            tables += [table for table in of_parent.tables if table not in tables]
            related += of_parent.related
    # other columns of a through table do not decide what a many-to-many field contains
    related = [relation for relation in related if not written.isdisjoint(relation.references)]
    return WriteTarget(model, tables, related) if tables or related else None


def _update(
    compiler: Any, target: WriteTarget, returning_fields: Sequence[Any]
) -> list[Any] | None:
    """Execute an UPDATE that also returns the columns of images.

    Returns the columns ``returning_fields`` of each updated row; None if no statement was needed.
    """
    using, model, table = compiler.using, target.model, target.own
    connection = compiler.connection
    needs_old = bool(target.related) or (table is not None and table.tracked)
    key = _single_key(compiler.query, model)
    plan = None if key is not _NO_KEY else keys_query(compiler.query, model)
    reader = row_reader(target, using)
    try:
        sql, params = compiler.as_sql()
    except EmptyResultSet:
        return None
    if not sql:
        return None
    can_return = can_return_rows(connection)
    returns_old = can_return and needs_old and _returns_old(connection)
    with statement_transaction(using, write_lock=needs_old):
        befores: Rows = {}
        # without RETURNING, these are also the rows to read again
        if not returns_old and (needs_old or not can_return):
            befores = _rows_before(compiler, target, key, plan)
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
            returned = cursor.fetchall()
        first, last = len(returning_fields), len(returning_fields) + len(reader.columns)
        afters = [reader.row(values[first:last]) for values in returned]
        olds = [reader.row(values[last:]) for values in returned] if returns_old else []
        if table is not None:
            pairs = zip(olds, afters, strict=True)
            matched = _matched(compiler.query, table, befores, afters)
            record(table, using, _paired(table, pairs) if returns_old else matched)
        if target.related:
            befores = identified(model, olds) if returns_old else befores
            record_changed_references(target, using, befores, afters)
        return [values[:first] for values in returned]


def _execute_without_returning(
    compiler: Any, target: WriteTarget, sql: str, params: Any, befores: Rows
) -> list[Any]:
    """Execute an UPDATE on a database without RETURNING, and read the rows again."""
    using, table = compiler.using, target.own
    with compiler.connection.cursor() as cursor:
        cursor.execute(sql, params)
        count = cursor.rowcount
    keys = [key_in(target.model, row) for row in befores.values()]
    afters = list(read_written(target, using, keys).values())
    if table is not None:
        record(table, using, _matched(compiler.query, table, befores, afters))
    record_changed_references(target, using, befores, afters)
    if count != len(afters):
        # other rows were updated than those that were read before
        resync(target.all_tables, using)
    return [()] * count


def _paired(
    table: WatchedTable, pairs: Iterable[tuple[Row, Row]]
) -> Iterator[tuple[Row | None, Row | None, Op]]:
    for before, after in pairs:
        if table.identity_of(before) == table.identity_of(after):
            yield before, after, "updated"
        else:  # another document: ids do not change
            yield before, None, "deleted"
            yield None, after, "created"


def _matched(
    query: Any, table: WatchedTable, befores: Rows, afters: list[Row]
) -> Iterator[tuple[Row | None, Row | None, Op]]:
    """Yield rows after an update with the row before; None if it was not read."""
    identities = {table.identity_of(row) for row in afters}
    moves = any(f in table.model._meta.pk_fields for f, _, _ in query.values)
    if moves:
        for identity, before in befores.items():
            if identity not in identities:
                yield before, None, "deleted"
    for after in afters:
        identity = table.identity_of(after)
        created = moves and identity not in befores
        yield befores.get(identity), after, "created" if created else "updated"


_NO_KEY = object()


def _single_key(query: Any, model: type[models.Model]) -> Any:
    """Return the primary key that a statement is limited to; `_NO_KEY` for other conditions."""
    children = query.where.children
    if len(children) != 1 or query.where.negated or len(model._meta.pk_fields) != 1:
        return _NO_KEY
    if has_custom_key(model):
        return _NO_KEY  # the value in the statement was converted for the database already
    lookup = children[0]
    if type(lookup) not in (Exact, IntegerFieldExact) or hasattr(lookup.rhs, "as_sql"):
        return _NO_KEY
    target = getattr(lookup.lhs, "target", None)
    if target is None or not target.primary_key:
        return _NO_KEY
    same_table = target.model._meta.db_table == model._meta.db_table
    return lookup.rhs if same_table else _NO_KEY


def _rows_before(compiler: Any, target: WriteTarget, key: Any, plan: Any) -> Rows:
    """Return the rows that a statement will write, as they are now, locked until the end."""
    using, table = compiler.using, target.own
    acquire_write_lock(using, target.model)
    try:
        with own_statements(using):
            if table is None or key is _NO_KEY or len(needed_fields(target)) > len(table.fields):
                keys = run_keys_query(plan, using) if key is _NO_KEY else [key]
                _lock_for_update(target.model, using, keys, compiler.query.values)
                return read_written(target, using, keys)
            row = table.read_one(using, key, _lock_clause(compiler, target, table, key))
    except DatabaseFailure:
        raise
    except Exception:  # the project's own statement raises it in its own words
        return {}
    return {} if row is None else {table.identity_of(row): row}


def _lock_for_update(
    model: type[models.Model], using: str, keys: list[Any], values: Sequence[Any]
) -> None:
    """Lock the rows of one table that an UPDATE will write, as strongly as it will."""
    if not connections[using].features.has_select_for_no_key_update:
        lock_rows(model, using, keys)
        return
    unique = [(f, value) for f, _, value in values if _is_unique(f)]
    lock_rows(model, using, keys, no_key=not _may_change(model, using, keys, unique))


def _may_change(
    model: type[models.Model], using: str, keys: list[Any], values: Sequence[tuple[Any, Any]]
) -> bool:
    """Return whether an UPDATE gives one of the rows another value than it has."""
    if not values or not keys:
        return False
    if len(keys) > MAX_KEYS:
        return True
    queryset: Any = QuerySet(model, using=using).filter(pk__in=keys)
    others = [queryset.exclude(**{f.name: value}) for f, value in values]
    return any(other.exists() for other in others)


def _lock_clause(compiler: Any, target: WriteTarget, table: WatchedTable, key: Any) -> str:
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
    values = {} if row is None else row
    differing = [(f, value) for f, value in unique if value != values.get(str(f.attname))]
    changes = _may_change(target.model, compiler.using, [key], differing)
    return "FOR UPDATE" if changes else "FOR NO KEY UPDATE"


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


def _update_by_keys(compiler: Any, target: WriteTarget, execute: Callable[[], Any]) -> Any:
    """Execute an UPDATE of rows that are in several tables; read them before and after."""
    using, model = compiler.using, target.model
    plan = keys_query(compiler.query, model)
    with statement_transaction(using, write_lock=True):
        befores: dict[WatchedTable, Rows] = {}
        references: Rows = {}
        unread: list[WatchedTable] = []
        acquire_write_lock(using, model)
        try:
            with own_statements(using):
                keys = run_keys_query(plan, using)
                _lock_written_tables(compiler.query, model, using, keys)
                for table in target.tables:
                    befores[table] = read_joined(table, model, using, keys)
                if target.related:
                    references = read_references(target, using, Q(pk__in=keys))
        except DatabaseFailure:
            raise
        except Exception:  # the project's own statement may raise it, in its own words
            befores, unread = {}, target.all_tables
        with inside_captured_statement():  # statements for columns of parents belong to this one
            result = execute()
        resync(unread, using)
        save = current_save(model)
        written = {parent._meta.db_table for parent in compiler.query.related_updates}
        written |= {model._meta.db_table} if compiler.query.values else set()
        if save is not None:
            save.written |= written
            written = save.written
        for table, rows in befores.items():
            if (
                save is not None
                and not save.raw
                and table.model._meta.db_table != (model._meta.db_table)
                and is_written_later(save, table)
            ):
                for row in rows.values():
                    save.pending.setdefault(table, row)
                continue
            before = rows
            if save is not None and table in save.pending:
                first = save.pending.pop(table)
                before = {} if first is None else {table.identity_of(first): first}
            with own_statements(using):
                afters = table.read(using, [table.key_of(row) for row in rows.values()])
            record(table, using, [(before.get(k), after, "updated") for k, after in afters.items()])
            check_on_commit(table, using, written, before, afters)
        if references:
            keys = [key_in(model, row) for row in references.values()]
            afters = read_references(target, using, Q(pk__in=keys))
            record_changed_references(target, using, references, afters.values())
    return result


def _lock_written_tables(
    query: Any, model: type[models.Model], using: str, keys: list[Any]
) -> None:
    """Lock the rows of each table that the statement writes, and of no other."""
    if query.values:
        _lock_for_update(model, using, keys, query.values)
    for parent, values in query.related_updates.items():
        _lock_for_update(parent, using, keys_in_parent(model, parent, using, keys), values)
