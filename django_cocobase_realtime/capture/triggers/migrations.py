"""Keeps triggers up to date when ``migrate`` runs.

SQLite refuses to change a table that a trigger names, and drops triggers with the tables that it
remakes. So triggers are dropped before migrations are applied, and created afterwards.
PostgreSQL's do not name the columns of their table and are kept, except those that name columns of
several tables, which do nothing meanwhile. Subscribers of collections whose triggers were missing
fetch everything again.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import ProgrammingError, connections
from django.db.models.signals import post_migrate, pre_migrate

from ...declarations.capture_mode import TRIGGER_VENDORS, title
from ...models import LogEvent
from ..recorder import log_exists
from . import catalog
from .installation import by_triggers, pause
from .presence import forget_installed
from .sources import sources
from .synchronization import synchronize

logger = logging.getLogger(__name__)

DISPATCH_UID = "django_cocobase_realtime.triggers"

# names of the sources whose triggers were dropped or paused, by the aliases of databases in which
# migrations are being applied
_paused: dict[str, set[str]] = {}


def connect(app_config: Any) -> None:
    """Connect the receivers, once per ``migrate``: for the signals that this app sends."""
    pre_migrate.connect(before_migrate, sender=app_config, dispatch_uid=DISPATCH_UID)
    post_migrate.connect(after_migrate, sender=app_config, dispatch_uid=DISPATCH_UID)


def is_migrating(using: str) -> bool:
    """Return whether ``migrate`` is applying migrations, so that `after_migrate` follows."""
    return using in _paused


def before_migrate(using: str, plan: Any = None, **kwargs: Any) -> None:
    """Drop or pause the triggers that would make migrations or writes fail."""
    connection = connections[using]
    forget_installed(using)
    if not plan or connection.vendor not in TRIGGER_VENDORS:
        return
    label = LogEvent._meta.app_label
    lasting: set[str] = set()
    if connection.vendor == "postgresql" and all(m.app_label != label for m, _ in plan):
        lasting = {
            source.name
            for collection in by_triggers(using)
            for source in sources(collection)
            if source.is_single_table
        }
    _paused[using] = set()
    try:
        _paused[using] = pause(using, catalog.installed(using).keys() - lasting)
    except ProgrammingError as error:  # another role has created them
        logger.warning("The triggers that write the log could not be paused: %s", error)


def after_migrate(using: str, plan: Any = None, **kwargs: Any) -> None:
    """Create the triggers that are missing, and drop those of other collections.

    ``plan`` is None if the tables were only emptied, as after a test.
    """
    if plan is None or connections[using].vendor not in TRIGGER_VENDORS:
        return
    paused = _paused.pop(using, set())
    forget_installed(using)
    collections = by_triggers(using) if log_exists(using) else []
    if not collections and not catalog.installed(using):
        return
    for collection, error in synchronize(using, collections, paused):
        logger.warning(
            "The triggers of %s could not be installed, so changes that the ORM does "
            "not make are not seen: %s Run manage.py realtime_triggers install, with a role that "
            "may create them, and while no transaction holds the table for long.",
            title(collection),
            str(error).strip(),
        )
