"""Declares a collection for every model that is loaded, and has it captured."""

import re
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.signals import setting_changed
from django.db import connections, models

SETTING = "COCOBASE_REALTIME"
MAX_NAME = 128  # characters
APP_LABEL = "cocobase_realtime"


def watch_everything(capture: str) -> dict[str, Any]:
    """Watch every concrete managed model, by "signals" or "triggers".

    Return the refused models with the check's message.
    """
    from django_cocobase_realtime.checks import first_problem

    collections: dict[str, Any] = {}
    refused: dict[str, Any] = {}
    for model in _models():
        label = model._meta.label
        entry: Any = {"model": label, "not_secret": [field.name for field in model._meta.pk_fields]}
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {collection_name(model): entry}}
        problem = first_problem()
        if problem is None:
            collections[collection_name(model)] = entry
        else:
            refused[label] = f"{problem.id}: {problem.msg}"
    settings.COCOBASE_REALTIME = value = {"COLLECTIONS": collections, "CAPTURE": capture}
    setting_changed.send(sender=None, setting=SETTING, value=value, enter=True)
    return refused


def find_references_in_tables() -> None:
    """Let SQLite's connections look for references to a table in tables only, not in triggers.

    Flushing looks at all of ``sqlite_master`` for each table, with a function of Django's. With the
    triggers of a thousand models this takes minutes.
    """
    for connection in connections.all():
        if connection.vendor == "sqlite":
            operations: Any = connection.ops
            operations._references_graph = lru_cache(maxsize=None)(
                partial(_references_graph, connection)
            )


def _references_graph(connection: Any, table: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH tables AS (SELECT %s name UNION SELECT sqlite_master.name FROM sqlite_master "
            "JOIN tables ON (type = 'table' AND sql REGEXP %s || tables.name || %s)) "
            "SELECT name FROM tables",
            (table, r"(?i)\s+references\s+(\"|\')?", r"(\"|\')?\s*\("),
        )
        return [name for (name,) in cursor.fetchall()]


def collection_name(model: type[models.Model]) -> str:
    """Return the name of a model's collection."""
    return re.sub(r"\W", "_", model._meta.label_lower)[:MAX_NAME]


def _models() -> Iterator[type[models.Model]]:
    for model in apps.get_models(include_auto_created=True):
        meta = model._meta
        if meta.app_label != APP_LABEL and meta.managed and not meta.proxy and not meta.swapped:
            yield model
