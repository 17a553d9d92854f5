"""Capture of deletions, including cascades.

Also captures rows whose foreign key a deletion sets to NULL or to a default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db import models
from django.db.models import Q

from ..utils.transactions import acquire_write_lock
from .record import is_capture_disabled, record_rows, record_save
from .rows import Row, WatchedTable

# attribute of an instance that holds its `_Pending` from before_delete to after_delete
PENDING = "_realtime_delete"


@dataclass(frozen=True)
class DeleteTargets:
    """The watched tables that a deletion of an instance of one model changes."""

    # the model's own table, if it is watched
    own: WatchedTable | None
    # watched tables and the names of their foreign keys to the model whose `on_delete` is
    # SET_NULL, SET_DEFAULT or SET(): Django updates those rows without a signal
    relations: tuple[tuple[WatchedTable, str], ...] = ()

    def __bool__(self) -> bool:
        return self.own is not None or bool(self.relations)


@dataclass
class _Pending:
    """Rows that were read before a deletion."""

    # the row that is deleted
    before: Row | None = None
    # rows whose foreign key the deletion changes
    related: list[tuple[WatchedTable, Row]] = field(default_factory=list)


class DeleteCapture:
    """Receivers of the signals of deletions."""

    def __init__(self) -> None:
        # by the model whose deletions are captured
        self.targets: dict[type[models.Model], DeleteTargets] = {}

    def before_delete(
        self, sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any
    ) -> None:
        """Read the rows that the deletion changes; receives ``pre_delete``.

        Django sends it inside the transaction of the deletion.
        """
        targets = self.targets.get(type(instance))
        if not targets or is_capture_disabled():
            return
        pending = _Pending()
        acquire_write_lock(using, type(instance))
        if targets.own is not None:
            pending.before = targets.own.read(using, instance.pk, lock=True)
        for table, name in targets.relations:
            rows = table.read_where(using, Q(**{name: instance}), lock=True)
            pending.related += [(table, row) for row in rows]
        instance.__dict__[PENDING] = pending

    def after_delete(
        self, sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any
    ) -> None:
        """Record the deletion; receives ``post_delete``, in the same transaction."""
        pending: _Pending | None = instance.__dict__.pop(PENDING, None)
        targets = self.targets.get(type(instance))
        if pending is None or not targets:
            return
        for table, row in pending.related:
            pk = table.pk_of(row)
            record_save(table, using, pk, before=row, created=False, instance=None)
        if targets.own is not None and pending.before is not None:
            record_rows(targets.own, using, [(pending.before, None)])
