"""Knows which instance is being saved, if its row is written by several statements.

The row of a multi-table child is written table by table. Its event waits for the child's own
table, so that one save is one event.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import models

from ..utils.transactions import own_statements
from .concurrency import check_on_commit
from .recorder import record
from .targets import TableSave, state, watched


def wrap_save_base(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Model.save_base``."""

    @wraps(original)
    def save_base(self: models.Model, raw: bool = False, *args: Any, **kwargs: Any) -> Any:
        concrete = type(self)._meta.concrete_model
        if not watched.tables or concrete is None or not (raw or concrete._meta.parents):
            return original(self, raw, *args, **kwargs)
        outer = state.saves
        state.saves = (*outer, TableSave(self, raw))
        try:
            return original(self, raw, *args, **kwargs)
        finally:
            state.saves = outer

    return save_base


def wrap_save_table(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Model._save_table``."""

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
        save = state.saves[-1] if state.saves else None
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


def _record_pending(save: TableSave, using: str) -> None:
    """Record rows of which the save wrote a parent's table alone."""
    for table, before in save.pending.items():
        if before is not None:
            with own_statements(using):
                afters = table.read(using, [table.key_of(before)])
            record(table, using, [(before, after, "updated") for after in afters.values()])
            befores = {table.identity_of(before): before}
            check_on_commit(table, using, save.written, befores, afters)
    save.pending.clear()
