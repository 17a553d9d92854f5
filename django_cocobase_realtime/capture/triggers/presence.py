"""Which triggers of a database log at present.

A table's changes are logged by the triggers that exist and are enabled, whatever the settings of a
process say, and whichever version of the project installed them; else by the ORM's statements. So
nothing is logged twice while two versions of a project run side by side.

A process looks it up once a second. If triggers are gone that it knew, it may have written rows
meanwhile that nothing logged: subscribers fetch everything again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from django.db import connections, models

from ...declarations.capture_mode import TRIGGER_VENDORS, Captured
from ...declarations.registry import registry
from ...log.retention import rotate_epoch
from ...utils.transactions import acquire_write_lock, call_on_commit, own_statements
from ..recorder import log_exists
from . import catalog
from .sources import Source, Tables, sources

LIFETIME = 1.0
"""Seconds after which a process looks up again which triggers a database has."""

_NONE: Tables = {}


@dataclass(slots=True)
class _Known:
    """The triggers of one database; ``expires_at`` is a time of `time.monotonic`."""

    tables: Tables
    expires_at: float


# by alias and database name
_known: dict[tuple[str, str], _Known] = {}
# streams whose subscribers must fetch everything again, by alias
_to_resync: dict[str, set[str]] = {}


def logged_tables(using: str, written: type[models.Model]) -> Tables:
    """Return the tables of a database whose triggers log, as far as this process knows.

    Called for the statements that write the table of a model.
    """
    connection: Any = connections[using]
    if connection.vendor not in TRIGGER_VENDORS:
        return _NONE
    key = using, str(connection.settings_dict["NAME"])
    known = _known.get(key)
    if known is not None and known.expires_at > time.monotonic():
        return known.tables
    # a transaction on SQLite that reads before it writes may fail
    acquire_write_lock(using, written)
    with own_statements(using):
        tables = catalog.logged_tables(using)
    if known is not None:
        _notice_missing(using, known.tables, tables)
    if not _is_changed_in_transaction(connection):
        _known[key] = _Known(tables, time.monotonic() + LIFETIME)
    return tables


def logs_by_triggers(
    collection: Captured,
    logged: Tables,
    written: type[models.Model],
    field: str | None = None,
) -> bool:
    """Return whether triggers log what is written to the table of a model for a collection.

    ``field`` is the name of the many-to-many field if it is a through table.
    """
    if not collection.durable:
        return False
    source = _source(collection, written._meta.db_table if field is None else None, field)
    return source is not None and catalog.is_present(source, logged)


def forget_installed(using: str) -> None:
    """Look up again which triggers are installed, after this process has changed them."""
    for key in [key for key in _known if key[0] == using]:
        del _known[key]
    connection: Any = connections[using]
    connection._realtime_trigger_block = (
        connection.atomic_blocks[0] if connection.atomic_blocks else None
    )


def _is_changed_in_transaction(connection: Any) -> bool:
    """Return whether the open transaction has changed triggers, which may be rolled back."""
    block = getattr(connection, "_realtime_trigger_block", None)
    return block is not None and block in connection.atomic_blocks[:1]


@lru_cache(maxsize=4096)
def _source(collection: Captured, table: str | None, field: str | None) -> Source | None:
    for source in sources(collection):
        if source.related is None:
            if field is None and source.model._meta.db_table == table:
                return source
        elif source.related.field == field:
            return source
    return None


def _notice_missing(using: str, before: Tables, after: Tables) -> None:
    """Let the subscribers of collections resync whose triggers have disappeared."""
    missing = before.keys() - after.keys()
    streams = _to_resync.setdefault(using, set())
    if missing:
        streams.update(
            collection.stream
            for collection in registry.captured()
            if collection.database == using and collection.durable
            if not missing.isdisjoint(source.name for source in sources(collection))
        )
    if streams:
        # again after a rollback, which drops what is to be done on commit
        call_on_commit(using, partial(_resync, using))


def _resync(using: str) -> None:
    streams = _to_resync.get(using, set())
    if streams and log_exists(using):
        with own_statements(using):
            rotate_epoch(using, streams)
    streams.clear()
