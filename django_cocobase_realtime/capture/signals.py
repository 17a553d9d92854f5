"""Connection of the capture receivers to the signals of watched models.

Receivers are connected by sender: with a receiver for all models, Django could not use its fast
path for any deletion in the project.
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

# dispatch_uid of the receivers that capture writes
UID = "django_cocobase_realtime"
# dispatch_uid of the receivers that only announce what triggers have logged
ANNOUNCE_UID = "django_cocobase_realtime.announce"
_saves = SaveCapture()
_deletes = DeleteCapture()
_relations = RelationCapture()
# models whose triggers write the log, with the names of their collections
_trigger_models: dict[type[models.Model], list[str]] = {}
# models whose `save_base` is wrapped, with the original, or _INHERITED if they had none themselves
_wrapped: dict[type[models.Model], Any] = {}
_INHERITED = object()


def sync() -> None:
    """Connect the models of the registry's collections, and disconnect all others.

    Called at start, and when the setting changes.
    """
    _disconnect()
    _connect_announcements()
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
    """Return the watched tables that a write to a model's table changes."""
    targets = _saves.targets.get(model)
    return () if targets is None else targets.own + targets.below


def _connect_relations(tables: dict[type[models.Model], WatchedTable]) -> None:
    for model, table in tables.items():
        for field in model._meta.many_to_many:
            through: Any = field.remote_field.through
            _relations.relations[through] = Relation(table, field.name)
            m2m_changed.connect(_relations.on_change, sender=through, dispatch_uid=UID)


def _disconnect() -> None:
    for model in _trigger_models:
        post_save.disconnect(sender=model, dispatch_uid=ANNOUNCE_UID)
        post_delete.disconnect(sender=model, dispatch_uid=ANNOUNCE_UID)
    _trigger_models.clear()
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
        return  # it inherits the wrapper
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
    return {model: WatchedTable(model, tuple(group)) for model, group in groups.items()}


def _trigger_collections() -> dict[type[models.Model], list[Collection]]:
    """Return the collections with ``capture = "triggers"``, by model."""
    groups: dict[type[models.Model], list[Collection]] = {}
    for collection in registry:
        if collection.capture == "triggers":
            groups.setdefault(collection.concrete_model, []).append(collection)
    return groups


def _connect_announcements() -> None:
    """Announce saves that triggers log, so that servers need not wait for their next poll."""
    groups = _trigger_collections()
    for model in _all_models():
        concrete = model._meta.concrete_model
        names = [collection.name for collection in groups.get(concrete, ())] if concrete else []
        if names:
            _trigger_models[model] = names
            post_save.connect(_announce, sender=model, dispatch_uid=ANNOUNCE_UID)
            post_delete.connect(_announce, sender=model, dispatch_uid=ANNOUNCE_UID)


def _announce(sender: type[models.Model], using: str, **kwargs: Any) -> None:
    for name in _trigger_models.get(sender, ()):
        Transaction.current(using).once_on_commit(name, partial(broker.notify, name))


def _save_targets(
    model: type[models.Model], tables: dict[type[models.Model], WatchedTable]
) -> SaveTargets:
    concrete = model._meta.concrete_model
    if concrete is None:
        return SaveTargets(())
    written = [*concrete._meta.get_parent_list(), concrete]
    own = tuple(tables[m] for m in written if m in tables)
    below = tuple(table for m, table in tables.items() if concrete in m._meta.get_parent_list())
    return SaveTargets(own, below)


def _delete_targets(
    model: type[models.Model], tables: dict[type[models.Model], WatchedTable]
) -> DeleteTargets:
    concrete = model._meta.concrete_model
    if concrete is None:
        return DeleteTargets(None)
    # Django updates these rows without a signal; SET(...) is recognized by its `deconstruct`
    updating = (models.SET_NULL, models.SET_DEFAULT)
    relations = [
        (table, name)
        for name, table in (
            (field.name, tables.get(field.model))
            for field in _foreign_keys_to(concrete)
            if field.remote_field.on_delete in updating
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
