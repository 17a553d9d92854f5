"""Starts and stops capture, and connects the signal receivers that push changes.

The log does not depend on receivers: `writes` records changes where they are written. After a save
or a deletion, a receiver announces on commit that the collection has new events. For writes that
send no signal, and if an earlier receiver raised, the recorder has done so already.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import connections, models
from django.db.models.signals import post_delete, post_save, pre_migrate

from ..declarations.collection import Collection
from ..declarations.registry import registry
from . import writes
from .recorder import forget_log_tables, is_capture_disabled, push
from .tables import WatchedTables, watched_tables

DISPATCH_UID = "django_cocobase_realtime.push"

# streams of collections that show the rows of a model, by model
_collections: dict[type[models.Model], list[str]] = {}


def sync() -> None:
    """Capture the collections that the registry has now; called when the setting changes."""
    by_model: dict[type[models.Model], list[Collection]] = {}
    for collection in registry:
        by_model.setdefault(collection.concrete_model, []).append(collection)
    # statements are captured for all of them, as long as triggers do not log a collection
    writes.watch(WatchedTables(watched_tables(registry.captured())), is_push_receiver)
    pre_migrate.connect(forget_log_tables, dispatch_uid=DISPATCH_UID)
    _connect(by_model)


def is_push_receiver(receiver: Any) -> bool:
    """Return whether a signal receiver is the one of this module."""
    return receiver is _push


def _connect(by_model: dict[type[models.Model], list[Collection]]) -> None:
    """Connect receivers for the models whose rows collections show, and disconnect others."""
    # by sender: a receiver for all models would keep Django from fast deletions
    streams: dict[type[models.Model], list[str]] = {}
    for model in apps.get_models(include_auto_created=True):
        names = [
            collection.stream
            for shown in (model._meta.concrete_model or model).__mro__
            for collection in by_model.get(shown, ())
            if collection.durable
        ]
        if names:
            streams[model] = names
    for model in _collections.keys() - streams.keys():
        for signal in (post_save, post_delete):
            signal.disconnect(sender=model, dispatch_uid=DISPATCH_UID)
    for model in streams.keys() - _collections.keys():
        for signal in (post_save, post_delete):
            signal.connect(_push, sender=model, dispatch_uid=DISPATCH_UID)
    _collections.clear()
    _collections.update(streams)


def _push(sender: type[models.Model], using: str, **kwargs: Any) -> None:
    """Announce on commit that the collections of the saved or deleted row have new events.

    In autocommit they have been announced when the statement was committed.
    """
    names = _collections.get(sender)
    if names and connections[using].in_atomic_block and not is_capture_disabled():
        push(using, names)
