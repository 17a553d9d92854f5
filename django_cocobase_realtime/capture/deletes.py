"""Captures DELETE statements: deletions of instances, cascades, querysets, through tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import Error as DatabaseFailure
from django.db import models
from django.db.models import Q
from django.db.models.sql.constants import NO_RESULTS, ROW_COUNT

from ..utils.transactions import acquire_write_lock, own_statements, statement_transaction
from .recorder import record
from .relations import record_related
from .tables import Rows, WatchedTable
from .targets import (
    WriteTarget,
    can_return_rows,
    find_target,
    keys_query,
    lock_rows,
    read_joined,
    read_references,
    resync,
    row_reader,
    run_keys_query,
)


def wrap_delete(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``SQLDeleteCompiler.execute_sql``."""

    @wraps(original)
    def execute_sql(self: Any, result_type: Any = None, *args: Any, **kwargs: Any) -> Any:
        target = find_target(self.query.get_meta().concrete_model, self.using)
        if target is None:
            return original(self, result_type, *args, **kwargs)
        can_return = can_return_rows(self.connection)
        plain = target.own is not None or not target.tables
        if can_return and plain and result_type in (ROW_COUNT, NO_RESULTS):
            return _delete(self, target, result_type)
        return _delete_by_keys(self, target, lambda: original(self, result_type, *args, **kwargs))

    return execute_sql


def _delete(compiler: Any, target: WriteTarget, result_type: Any) -> Any:
    """Execute a DELETE that also returns the columns of images."""
    using = compiler.using
    reader = row_reader(target, using)
    try:
        sql, params = compiler.as_sql()
    except EmptyResultSet:
        return None
    with statement_transaction(using, write_lock=False):
        with compiler.connection.cursor() as cursor:
            cursor.execute(f"{sql} RETURNING {', '.join(reader.qualified)}", params)
            rows = [reader.row(values) for values in cursor.fetchall()]
        for table in target.tables:
            record(table, using, [(row, None, "deleted") for row in rows])
        record_related(target, using, rows)
    return len(rows) if result_type == ROW_COUNT else None


def _delete_by_keys(compiler: Any, target: WriteTarget, execute: Callable[[], Any]) -> Any:
    """Execute a DELETE of rows that are in several tables; read them before."""
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
                if target.tables:
                    lock_rows(model, using, keys)
                for table in target.tables:
                    befores[table] = read_joined(table, model, using, keys)
                if target.related:
                    references = read_references(target, using, Q(pk__in=keys))
        except DatabaseFailure:
            raise
        except Exception:  # the project's own statement may raise it, in its own words
            befores, unread = {}, target.all_tables
        result = execute()
        resync(unread, using)
        for table, rows in befores.items():
            record(table, using, [(row, None, "deleted") for row in rows.values()])
        record_related(target, using, references.values())
    return result


def wrap_has_signal_listeners(
    original: Callable[..., Any], is_own_receiver: Callable[[Any], bool]
) -> Callable[..., Any]:
    """Wrap ``Collector._has_signal_listeners``."""

    @wraps(original)
    def _has_signal_listeners(self: Any, model: type[models.Model]) -> bool:
        """Ignore receivers of this app: rows without other listeners can be deleted fast."""
        if not original(self, model):
            return False
        signals = (models.signals.pre_delete, models.signals.post_delete)
        return any(
            not is_own_receiver(receiver)
            for signal in signals
            for receivers in signal._live_receivers(model)
            for receiver in receivers
        )

    return _has_signal_listeners
