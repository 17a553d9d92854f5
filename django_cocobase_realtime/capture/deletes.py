"""Deletions, cascades included, and the rows whose foreign key a deletion sets anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db import models
from django.db.models import Q

from ..utils.transactions import acquire_write_lock
from .record import is_capture_disabled, record_rows, record_save
from .rows import Row, WatchedTable

PENDING = "_realtime_delete"


@dataclass(frozen=True)
class DeleteTargets:
    """What a deletion of one class changes: its own table, and relations that it sets anew.

    ``relations``: watched tables with a foreign key to the class whose ``on_delete`` is
    SET_NULL, SET_DEFAULT or SET(): Django updates those rows without a signal.
    """

    own: WatchedTable | None
    relations: tuple[tuple[WatchedTable, str], ...] = ()

    def __bool__(self) -> bool:
        return self.own is not None or bool(self.relations)


@dataclass
class _Pending:
    before: Row | None = None
    related: list[tuple[WatchedTable, Row]] = field(default_factory=list)


class DeleteCapture:
    """Captures deletions of the classes it was given targets for."""

    def __init__(self) -> None:
        self.targets: dict[type[models.Model], DeleteTargets] = {}

    def before_delete(
        self, sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any
    ) -> None:
        """Receiver of ``pre_delete``: inside Django's transaction, the row is still there."""
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
        """Receiver of ``post_delete``: still inside, the row is gone."""
        pending: _Pending | None = instance.__dict__.pop(PENDING, None)
        targets = self.targets.get(type(instance))
        if pending is None or not targets:
            return
        for table, row in pending.related:
            pk = table.pk_of(row)
            record_save(table, using, pk, before=row, created=False, instance=None)
        if targets.own is not None and pending.before is not None:
            record_rows(targets.own, using, [(pending.before, None)])
