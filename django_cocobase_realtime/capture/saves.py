"""Capture of saves: read the row before a save, and record the change in ``post_save``.

Django sends ``post_save`` after the transaction of a single save has ended. The method
``save_base`` of watched models is therefore wrapped in a transaction, so that the row and its
event are committed or rolled back together.
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

# attribute of an instance that holds the rows before each of its saves in progress; a receiver
# may save the instance again, so that there can be several
ACTIVE = "_realtime_saves"


@dataclass(frozen=True)
class SaveTargets:
    """The watched tables that a save of an instance of one model changes."""

    # tables that the save writes: the model's own and those of its parents
    own: tuple[WatchedTable, ...]
    # tables of children by multi-table inheritance, whose documents contain the saved fields
    below: tuple[WatchedTable, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.own or self.below)


# rows before a save, None if there was no row; tables that were not read are missing
Befores = dict[WatchedTable, "Row | None"]


class SaveCapture:
    """A wrapper of ``save_base`` and a receiver of ``post_save``."""

    def __init__(self) -> None:
        # by the model whose saves are captured
        self.targets: dict[type[models.Model], SaveTargets] = {}

    def wrap(self, original: Callable[..., None]) -> Callable[..., None]:
        """Return a ``save_base`` that opens a transaction and reads the rows before the save."""
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
        """Record the save; receives ``post_save``."""
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
    """Read and lock the rows that a save will change, except those that are not needed."""
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
    """Return whether Django will insert without trying an update first.

    It does so for a new instance whose primary key has a default.
    """
    key = instance._meta.pk
    has_default = key.default is not NOT_PROVIDED or (
        getattr(key, "db_default", NOT_PROVIDED) is not NOT_PROVIDED
    )
    return instance._state.adding and has_default


def _key(table: WatchedTable, instance: models.Model) -> Any:
    return getattr(instance, table.model._meta.pk.attname)
