"""Keeps triggers up to date when ``migrate`` runs.

SQLite refuses to change a table that a trigger names, and drops triggers with the tables that it
makes again. So triggers are dropped before migrations are applied, and created afterwards.
PostgreSQL's are kept, except those that name columns of several tables. Subscribers of collections
whose triggers were missing fetch everything again.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import DatabaseError, connections
from django.db.models.signals import post_migrate, pre_migrate

from ...declarations.capture_mode import TRIGGER_VENDORS
from ...declarations.collection import Collection
from ...log.retention import rotate_epoch
from ..recorder import log_exists
from .installation import (
    absent_names,
    by_triggers,
    forget_installed,
    install,
    remove_all,
    remove_others,
    source_names,
)

logger = logging.getLogger(__name__)

DISPATCH_UID = "django_cocobase_realtime.triggers"


def connect(app_config: Any) -> None:
    """Connect the receivers, once per ``migrate``: for the signals that this app sends."""
    pre_migrate.connect(before_migrate, sender=app_config, dispatch_uid=DISPATCH_UID)
    post_migrate.connect(after_migrate, sender=app_config, dispatch_uid=DISPATCH_UID)


def before_migrate(using: str, plan: Any = None, **kwargs: Any) -> None:
    """Drop the triggers that would make migrations fail."""
    forget_installed(using)
    if plan and connections[using].vendor in TRIGGER_VENDORS:
        remove_all(using, but_lasting=True)


def after_migrate(using: str, plan: Any = None, **kwargs: Any) -> None:
    """Create the triggers that are missing, and drop those of other collections.

    ``plan`` is None if the tables were only emptied, as after a test.
    """
    if plan is None or connections[using].vendor not in TRIGGER_VENDORS or not log_exists(using):
        return
    collections = by_triggers(using)
    remove_others(using, collections)
    absent = absent_names(using, collections)
    installed = _install(using, collections)
    renewed = [c.stream for c in installed if not absent.isdisjoint(source_names(c))]
    if renewed:
        rotate_epoch(using, renewed)


def _install(using: str, collections: list[Collection]) -> list[Collection]:
    """Install triggers, and return the collections for which this was possible."""
    connection = connections[using]
    with connection.cursor() as cursor:
        tables = set(connection.introspection.table_names(cursor))
    collections = [
        collection
        for collection in collections
        # a name with quotes contains a schema
        if (table := collection.concrete_model._meta.db_table) in tables or '"' in table
    ]
    try:
        install(*collections)
    except (DatabaseError, LookupError):
        return [collection for collection in collections if _can_install(collection)]
    return collections


def _can_install(collection: Collection) -> bool:
    try:
        install(collection)
    except LookupError:
        return False  # a table is not there yet
    except DatabaseError as error:
        logger.warning(
            "The triggers of collection %r could not be installed, so changes that the ORM does "
            "not make are not seen: %s Run manage.py realtime_triggers install with a role that "
            "may create them.",
            collection.name,
            error,
        )
        return False
    return True
