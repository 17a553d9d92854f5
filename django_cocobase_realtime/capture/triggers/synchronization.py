"""Brings all triggers of a database up to date."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.db import DatabaseError

from ...declarations.capture_mode import Captured
from ...log.retention import rotate_epoch
from .catalog import Catalog
from .installation import install, left_over, remove_named
from .sources import sources

logger = logging.getLogger(__name__)

Failures = list[tuple[Captured, DatabaseError]]


def synchronize(using: str, collections: list[Captured], paused: Iterable[str] = ()) -> Failures:
    """Install the triggers of these collections, and drop those that no collection needs.

    See `install_all`.
    """
    wanted = {source.name for collection in collections for source in sources(collection)}
    try:
        # first, or renamed ones would log everything twice
        remove_named(using, left_over(using, wanted))
    except DatabaseError as error:
        logger.warning("Triggers that are not needed any more could not be dropped: %s", error)
    return install_all(using, collections, paused)


def install_all(using: str, collections: list[Captured], paused: Iterable[str] = ()) -> Failures:
    """Install the triggers of collections in one database, as far as it is possible.

    Collections whose tables do not exist yet are left out. Subscribers of those whose triggers did
    not log before fetch everything again, also if the triggers were ``paused``, by the names of
    their sources, and cannot be installed. Returns the collections that the database refused.
    """
    paused = set(paused)
    known = Catalog(using, collections)
    failures: Failures = []
    to_resync = []
    for collection, sources_ in known.sources.items():
        was_paused = any(source.name in paused for source in sources_)
        try:
            is_changed = install(collection, known)
        except LookupError:
            is_changed = False
        except DatabaseError as error:
            failures.append((collection, error))
            is_changed = False
        if was_paused or (is_changed and any(map(known.has_gap, sources_))):
            to_resync.append(collection.stream)
    if to_resync:
        rotate_epoch(using, to_resync)
    return failures
