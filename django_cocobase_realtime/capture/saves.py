"""Saves: the row before, under its lock, and ``post_save`` with the row after.

Django sends ``post_save`` after a single save's own transaction, so ``save_base`` of watched
classes is wrapped in one: the row, its before-image and its event live or die together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.db import models
from django.db.models import NOT_PROVIDED

from ..utils.transactions import database_for, write_transaction
from .record import is_capture_disabled, record_save
from .rows import Row, WatchedTable

ACTIVE = "_realtime_saves"


@dataclass(frozen=True)
class SaveTargets:
    """Tables that a save of one class writes: its own and its parents', and its children's view.

    ``below`` are watched multi-table children: their rows show the fields of this one.
    """

    own: tuple[WatchedTable, ...]
    below: tuple[WatchedTable, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.own or self.below)


Befores = dict[WatchedTable, "Row | None"]


class SaveCapture:
    """Captures saves of the classes it was given targets for."""

    def __init__(self) -> None:
        self.targets: dict[type[models.Model], SaveTargets] = {}

    def wrap(self, original: Callable[..., None]) -> Callable[..., None]:
        """``save_base`` within one transaction that also holds the before-images."""
        capture = self

        @wraps(original)
        def save_base(
            self: models.Model,
            raw: bool = False,
            force_insert: Any = False,
            force_update: bool = False,
            using: str | None = None,
            update_fields: Any = None,
        ) -> None:
            targets = capture.targets.get(type(self))
            if raw or not targets or is_capture_disabled():
                original(self, raw, force_insert, force_update, using, update_fields)
                return
            using = using or database_for(type(self), self)
            with write_transaction(using, type(self)):
                active: list[Befores] = self.__dict__.setdefault(ACTIVE, [])
                inserts = bool(force_insert)
                if not (force_update or update_fields):
                    inserts = inserts or _will_insert(self)
                active.append(_befores(targets, self, using, inserts))
                try:
                    original(self, raw, force_insert, force_update, using, update_fields)
                finally:
                    active.pop()
                    if not active:
                        self.__dict__.pop(ACTIVE, None)

        return save_base

    def on_save(
        self,
        sender: type[models.Model],
        instance: models.Model,
        created: bool,
        using: str,
        update_fields: frozenset[str] | None,
        **kwargs: Any,
    ) -> None:
        """Receiver of ``post_save``."""
        targets = self.targets.get(type(instance))
        if not targets or is_capture_disabled():
            return
        active = instance.__dict__.get(ACTIVE)
        befores: Befores = active[-1] if active else {}
        for table in targets.own:
            before = befores.get(table)
            record_save(
                table,
                using,
                _key(table, instance),
                before=before,
                created=created if not table.tracked or not active else before is None,
                instance=instance,
                update_fields=update_fields,
            )
        for table in targets.below:
            before = befores.get(table)
            if before is not None:
                pk = table.pk_of(before)
                record_save(table, using, pk, before=before, created=False, instance=None)


def _befores(targets: SaveTargets, instance: models.Model, using: str, inserts: bool) -> Befores:
    befores: Befores = {}
    for table in targets.own:
        pk = _key(table, instance)
        is_new = inserts and table.model is type(instance)._meta.concrete_model
        if pk is not None and not is_new and table.tracked:
            befores[table] = table.read(using, pk, lock=True)
    if instance.pk is not None and not inserts:
        for table in targets.below:
            befores[table] = table.read(using, instance.pk, lock=True)
    return befores


def _will_insert(instance: models.Model) -> bool:
    """Whether Django itself is about to insert without looking (a new row with a default key)."""
    key = instance._meta.pk
    has_default = key.default is not NOT_PROVIDED or (
        getattr(key, "db_default", NOT_PROVIDED) is not NOT_PROVIDED
    )
    return instance._state.adding and has_default


def _key(table: WatchedTable, instance: models.Model) -> Any:
    return getattr(instance, table.model._meta.pk.attname)
