"""Capture of many-to-many changes, as updates of the rows whose field changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.db.models import Q

from ..utils.transactions import acquire_write_lock
from .record import is_capture_disabled, record_related
from .rows import WatchedTable

# attribute of an instance that holds the keys of related rows while its relation is cleared
PENDING = "_realtime_cleared"


@dataclass(frozen=True)
class Relation:
    """A many-to-many field of a watched table."""

    table: WatchedTable
    # the field's name
    field: str


class RelationCapture:
    """A receiver of the signal ``m2m_changed``."""

    def __init__(self) -> None:
        # by the field's through model
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
        """Record an update of each row whose field changed; receives ``m2m_changed``."""
        relation = self.relations.get(sender)
        if relation is None or is_capture_disabled():
            return
        if action == "pre_clear":
            # after the deletion, the related rows can no longer be found
            acquire_write_lock(using, sender)
            instance.__dict__[PENDING] = self._affected(relation, instance, reverse, using)
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

    def _affected(
        self, relation: Relation, instance: models.Model, reverse: bool, using: str
    ) -> list[Any]:
        """Return the keys of the watched rows whose field will be empty.

        ``reverse`` is True if the relation is cleared from its other side.
        """
        rows = relation.table.model._base_manager.using(using)
        if reverse:
            return list(rows.filter(**{relation.field: instance.pk}).values_list("pk", flat=True))
        has_related = rows.filter(pk=instance.pk, **{f"{relation.field}__isnull": False}).exists()
        return [instance.pk] if has_related else []
