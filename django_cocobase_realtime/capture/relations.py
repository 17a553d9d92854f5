"""Many-to-many changes: an update of each row whose field changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.db.models import Q

from ..utils.transactions import acquire_write_lock
from .record import is_capture_disabled, record_related
from .rows import WatchedTable

PENDING = "_realtime_cleared"


@dataclass(frozen=True)
class Relation:
    """A many-to-many field of a watched table."""

    table: WatchedTable
    field: str


class RelationCapture:
    """Captures ``m2m_changed`` of the through models it was given relations for."""

    def __init__(self) -> None:
        self.relations: dict[type[models.Model], Relation] = {}

    def on_change(
        self,
        sender: type[models.Model],
        instance: models.Model,
        action: str,
        reverse: bool,
        pk_set: set[Any] | None,
        using: str,
        **kwargs: Any,
    ) -> None:
        """Receiver of ``m2m_changed``."""
        relation = self.relations.get(sender)
        if relation is None or is_capture_disabled():
            return
        if action == "pre_clear":
            # afterwards nobody can tell which rows there were
            acquire_write_lock(using, sender)
            instance.__dict__[PENDING] = self._related(relation, instance, reverse, using)
            return
        if action == "post_clear":
            keys: Iterable[Any] = instance.__dict__.pop(PENDING, ())
        elif action in ("post_add", "post_remove"):
            keys = (pk_set or ()) if reverse else ([instance.pk] if pk_set else ())
        else:
            return
        table = relation.table
        for row in table.read_where(using, Q(pk__in=list(keys)), lock=False):
            record_related(table, using, row, relation.field)

    def _related(
        self, relation: Relation, instance: models.Model, reverse: bool, using: str
    ) -> list[Any]:
        rows = relation.table.model._base_manager.using(using)
        if reverse:
            return list(rows.filter(**{relation.field: instance.pk}).values_list("pk", flat=True))
        there = rows.filter(pk=instance.pk, **{f"{relation.field}__isnull": False}).exists()
        return [instance.pk] if there else []
