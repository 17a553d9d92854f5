"""System checks: every mistake in the setting, with a stable id and a hint."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from ..conf import OPTIONS, SETTING, conf
from ..declarations.collection import trigger_name
from ..declarations.registry import registry
from . import environment, rooms, values
from .collections import check_collections, check_unseen
from .messages import error, warning


def first_problem() -> CheckMessage | None:
    """The first mistake that keeps collections from being watched; None where all hold."""
    return next((m for m in check_collections() if m.level >= checks.ERROR), None)


@checks.register("realtime")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """All of it, in the order of the ids."""
    try:
        raw = conf.raw
    except ImproperlyConfigured as problem:
        return [error(1, str(problem))]
    found: list[CheckMessage] = [
        error(2, f"{SETTING} has an unknown key {key!r}.", f"Known keys are {list(OPTIONS)}.")
        for key in raw
        if key not in OPTIONS
    ]
    found += check_collections()
    if not found:
        found += check_unseen()
    for check in (
        values.limits,
        values.log,
        values.jwt,
        values.authenticators,
        environment.layer,
        environment.runserver,
        values.numbers,
        environment.daphne,
        rooms.declarations,
        rooms.presence,
    ):
        found += check()
    return found


@checks.register("realtime", checks.Tags.database)
def check_database(app_configs: Any = None, databases: Any = None, **kwargs: Any) -> list[Any]:
    """What only the database can tell: with ``check --database default``."""
    found: list[CheckMessage] = []
    if not databases or first_problem() is not None:
        return found
    for collection in registry:
        if collection.capture != "triggers" or collection.database not in databases:
            continue
        with connections[collection.database].cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid "
                "WHERE f.proname = %s",
                [trigger_name(collection.name)],
            )
            (count,) = cursor.fetchone()
        if not count:
            found.append(
                warning(
                    14,
                    f"Collection {collection.name!r}: its triggers are not installed.",
                    "Run manage.py realtime_triggers install.",
                )
            )
    return found
