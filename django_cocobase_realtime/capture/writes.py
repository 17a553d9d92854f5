"""Captures every write of the ORM where its SQL is executed.

The compilers of INSERT, UPDATE and DELETE statements are wrapped: whatever manager, queryset,
relation or deletion makes a statement, it is compiled and executed there. Statements of watched
tables get a ``RETURNING`` clause, so that what is recorded is what the database wrote.

In autocommit, a transaction is opened around the statement alone, after ``pre_save`` has run, and
committed before ``post_save`` runs. Inside a transaction of the project nothing is opened. Errors
are those of the project's own statement.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.deletion import Collector
from django.db.models.sql.compiler import SQLDeleteCompiler, SQLInsertCompiler, SQLUpdateCompiler

from ..log.append import Transaction
from .deletes import wrap_delete, wrap_has_signal_listeners
from .inserts import wrap_insert
from .recorder import push, statement_observers
from .saves import wrap_save_base, wrap_save_table
from .tables import WatchedTables
from .targets import announced_by, watched
from .updates import wrap_update, wrap_update_returning

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]

_COMPILERS = (SQLInsertCompiler, SQLUpdateCompiler, SQLDeleteCompiler)
_is_installed = False


def watch(tables: WatchedTables, is_own_receiver: Callable[[Any], bool]) -> None:
    """Capture writes to these tables from now on.

    ``is_own_receiver`` returns whether a signal receiver is one of this app, which must not keep
    Django from its fast deletion.
    """
    watched.tables = tables
    if tables:
        _install(is_own_receiver)


def wrap_announcement(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the execution of a statement whose changes triggers may log."""

    @wraps(original)
    def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        streams = announced_by(self.query.get_meta().concrete_model, self.using)
        if streams:
            push(self.using, streams)
            for observe in statement_observers:
                observe(self.using)
        return result

    return execute


def wrap_end_of_transaction(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``commit`` or ``rollback`` of a connection whose transactions the project manages."""

    @wraps(original)
    def end(self: Any) -> None:
        original(self)
        Transaction.forget(self)

    return end


def _install(is_own_receiver: Callable[[Any], bool]) -> None:
    global _is_installed
    if _is_installed:
        return
    _is_installed = True
    ignoring_own = partial(wrap_has_signal_listeners, is_own_receiver=is_own_receiver)
    wrappers: list[tuple[Any, str, Wrapper]] = [
        (SQLInsertCompiler, "execute_sql", wrap_insert),
        (SQLUpdateCompiler, "execute_sql", wrap_update),
        (SQLUpdateCompiler, "execute_returning_sql", wrap_update_returning),
        (SQLDeleteCompiler, "execute_sql", wrap_delete),
        *((compiler, "execute_sql", wrap_announcement) for compiler in _COMPILERS),
        (SQLUpdateCompiler, "execute_returning_sql", wrap_announcement),
        (models.Model, "save_base", wrap_save_base),
        (models.Model, "_save_table", wrap_save_table),
        (Collector, "_has_signal_listeners", ignoring_own),
        (BaseDatabaseWrapper, "commit", wrap_end_of_transaction),
        (BaseDatabaseWrapper, "rollback", wrap_end_of_transaction),
    ]
    for owner, name, wrap in wrappers:
        original = getattr(owner, name, None)
        if original is not None:  # UPDATE ... RETURNING is new in Django 6.0
            setattr(owner, name, wrap(original))
