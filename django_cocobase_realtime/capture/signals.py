"""Connects capture to the classes that matter, and to no other.

Receivers are connected by sender: a receiver for all models would cost every deletion of the
project Django's fast path. ``sync`` is called at start and whenever the setting changes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.apps import apps
from django.db import models
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete

from ..declarations.collection import Collection
from ..declarations.registry import registry
from ..log.append import Transaction
from ..pubsub.broker import broker
from .deletes import DeleteCapture, DeleteTargets
from .relations import Relation, RelationCapture
from .rows import WatchedTable
from .saves import SaveCapture, SaveTargets

UID = "django_cocobase_realtime"
BELL_UID = "django_cocobase_realtime.bell"
_saves = SaveCapture()
_deletes = DeleteCapture()
_relations = RelationCapture()
_bells: dict[type[models.Model], list[str]] = {}
_wrapped: dict[type[models.Model], Any] = {}
_INHERITED = object()


def sync() -> None:
    """Capture just what the registry watches now."""
    _disconnect()
    _connect_bells()
    tables = _watched_tables()
    if not tables:
        return
    for model in sorted(_all_models(), key=lambda m: len(m.__mro__)):
        saves = _save_targets(model, tables)
        if saves:
            _saves.targets[model] = saves
            _wrap(model)
            post_save.connect(_saves.on_save, sender=model, dispatch_uid=UID)
        deletes = _delete_targets(model, tables)
        if deletes:
            _deletes.targets[model] = deletes
            pre_delete.connect(_deletes.before_delete, sender=model, dispatch_uid=UID)
            post_delete.connect(_deletes.after_delete, sender=model, dispatch_uid=UID)

    _connect_relations(tables)


def tables_of(model: type[models.Model]) -> tuple[WatchedTable, ...]:
    """Watched tables that a write to this model's table changes."""
    targets = _saves.targets.get(model)
    return () if targets is None else targets.own + targets.below


def _connect_relations(tables: dict[type[models.Model], WatchedTable]) -> None:
    for model, table in tables.items():
        for field in model._meta.many_to_many:
            through: Any = field.remote_field.through
            _relations.relations[through] = Relation(table, field.name)
            m2m_changed.connect(_relations.on_change, sender=through, dispatch_uid=UID)


def _disconnect() -> None:
    for model in _bells:
        post_save.disconnect(sender=model, dispatch_uid=BELL_UID)
        post_delete.disconnect(sender=model, dispatch_uid=BELL_UID)
    _bells.clear()
    for through in _relations.relations:
        m2m_changed.disconnect(sender=through, dispatch_uid=UID)
    _relations.relations.clear()
    for model in _saves.targets:
        post_save.disconnect(sender=model, dispatch_uid=UID)
    for model in _deletes.targets:
        pre_delete.disconnect(sender=model, dispatch_uid=UID)
        post_delete.disconnect(sender=model, dispatch_uid=UID)
    for model, original in _wrapped.items():
        if original is _INHERITED:
            del model.save_base
        else:
            model.save_base = original  # type: ignore[method-assign]
    _wrapped.clear()
    _saves.targets.clear()
    _deletes.targets.clear()


def _wrap(model: type[models.Model]) -> None:
    if any(base in _wrapped for base in model.__mro__):
        return  # inherited from a wrapped class
    _wrapped[model] = model.__dict__.get("save_base", _INHERITED)
    model.save_base = _saves.wrap(model.save_base)  # type: ignore[method-assign]


def _all_models() -> list[type[models.Model]]:
    return list(apps.get_models(include_auto_created=True))


def _watched_tables() -> dict[type[models.Model], WatchedTable]:
    groups: dict[type[models.Model], list[Collection]] = {}
    for collection in registry:
        if collection.capture == "triggers":
            continue
        groups.setdefault(collection.concrete_model, []).append(collection)
    return {model: WatchedTable(model, tuple(found)) for model, found in groups.items()}


def _triggered() -> dict[type[models.Model], list[Collection]]:
    """Collections whose trigger logs, and whose commits only have to ring."""
    groups: dict[type[models.Model], list[Collection]] = {}
    for collection in registry:
        if collection.capture == "triggers":
            groups.setdefault(collection.concrete_model, []).append(collection)
    return groups


def _connect_bells() -> None:
    groups = _triggered()
    for model in _all_models():
        concrete = model._meta.concrete_model
        names = [collection.name for collection in groups.get(concrete, ())] if concrete else []
        if names:
            _bells[model] = names
            post_save.connect(_ring, sender=model, dispatch_uid=BELL_UID)
            post_delete.connect(_ring, sender=model, dispatch_uid=BELL_UID)


def _ring(sender: type[models.Model], using: str, **kwargs: Any) -> None:
    for name in _bells.get(sender, ()):
        Transaction.current(using).once_on_commit(name, partial(broker.notify, name))


def _save_targets(
    model: type[models.Model], tables: dict[type[models.Model], WatchedTable]
) -> SaveTargets:
    concrete = model._meta.concrete_model
    if concrete is None:
        return SaveTargets(())
    lineage = [*concrete._meta.get_parent_list(), concrete]
    own = tuple(tables[m] for m in lineage if m in tables)
    below = tuple(table for m, table in tables.items() if concrete in m._meta.get_parent_list())
    return SaveTargets(own, below)


def _delete_targets(
    model: type[models.Model], tables: dict[type[models.Model], WatchedTable]
) -> DeleteTargets:
    concrete = model._meta.concrete_model
    if concrete is None:
        return DeleteTargets(None)
    silent = (models.SET_NULL, models.SET_DEFAULT)
    relations = [
        (table, name)
        for name, table in (
            (field.name, tables.get(field.model))
            for field in _foreign_keys_to(concrete)
            if field.remote_field.on_delete in silent
            or hasattr(field.remote_field.on_delete, "deconstruct")
        )
        if table is not None
    ]
    return DeleteTargets(tables.get(concrete), tuple(relations))


def _foreign_keys_to(model: type[models.Model]) -> list[Any]:
    return [
        relation.field
        for relation in model._meta.get_fields(include_hidden=True)
        if isinstance(relation, models.ManyToOneRel)
    ]
