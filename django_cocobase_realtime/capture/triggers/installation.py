"""Installation and removal of triggers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, ProgrammingError, connections, transaction

from ...declarations.capture_mode import TRIGGER_VENDORS, Captured, captured_by
from ...declarations.registry import registry
from ...models import LogEvent
from . import catalog
from .catalog import Catalog
from .presence import forget_installed
from .sources import Source, sources

logger = logging.getLogger(__name__)

LOCK_TIMEOUT = "3s"
"""How long PostgreSQL waits for other transactions on a table, unless the session limits it.

All writers of the table wait meanwhile.
"""


def by_triggers(using: str | None = None) -> list[Captured]:
    """Return what is captured by triggers, in one database or in all.

    These are collections, and tables that collections depend on.
    """
    return [
        collection
        for collection in registry.captured()
        if captured_by(collection) == "triggers" and using in (None, collection.database)
    ]


def install(collection: Captured, known: Catalog | None = None) -> bool:
    """Create the triggers of a collection, or replace those that are outdated, in one transaction.

    Returns whether there was anything to do. Raises ``ValueError`` if the app has no triggers for
    the database, ``LookupError`` if there is no table, and the exceptions of the database; then,
    nothing was changed.
    """
    using = collection.database
    vendor = connections[using].vendor
    if vendor not in TRIGGER_VENDORS:
        raise ValueError(f"Triggers need PostgreSQL or SQLite; {collection.name!r} is in {vendor}.")
    known = known or Catalog(using, [collection])
    outdated = known.outdated(collection)
    statements = [sql for source in outdated for sql in known.install_sql(source)]
    if statements:
        _execute(using, statements, outdated)
    return bool(statements)


def install_sql(collection: Captured) -> list[str]:
    """Return the statements that `install` would execute. Raises ``LookupError`` likewise."""
    known = Catalog(collection.database, [collection])
    return [sql for source in known.outdated(collection) for sql in known.install_sql(source)]


def removal_sql(collection: Captured) -> list[str]:
    """Return the statements that drop the triggers of a collection."""
    triggers = catalog.installed(collection.database)
    names = [source.name for source in sources(collection) if source.name in triggers]
    return [sql for name in names for sql in triggers[name].removal]


def remove(collection: Captured) -> bool:
    """Drop the triggers of a collection; return whether there were any."""
    using = collection.database
    if connections[using].vendor not in TRIGGER_VENDORS:
        return False
    return bool(remove_named(using, {source.name for source in sources(collection)}))


def remove_named(using: str, names: Iterable[str]) -> set[str]:
    """Drop triggers by the names of their sources; return those that there were.

    If this would wait for long on PostgreSQL, their functions do nothing from now on.
    """
    wanted = set(names)
    triggers = catalog.installed(using) if wanted else {}
    existing = wanted & triggers.keys()
    if not existing:
        return set()
    pauses = [sql for name in sorted(existing) for sql in triggers[name].pause]
    if pauses:
        _execute(using, pauses)
    for name in sorted(existing):
        try:
            _execute(using, triggers[name].removal)
        except DatabaseError as error:
            if not pauses:
                raise
            logger.warning("Disabled triggers could not be dropped, and do nothing: %s", error)
    return existing


def pause(using: str, names: Iterable[str]) -> set[str]:
    """Let triggers do nothing until they are installed again, without waiting for other writers.

    On SQLite, they are dropped. Returns the names of the sources that had triggers.
    """
    triggers = catalog.installed(using)
    existing = {name for name in names if name in triggers and triggers[name].tables}
    statements = [
        sql for name in existing for sql in triggers[name].pause or triggers[name].removal
    ]
    if statements:
        _execute(using, statements)
    return existing


def is_installed(collection: Captured) -> bool:
    """Return whether all triggers of a collection exist, are enabled, and are up to date."""
    using = collection.database
    if connections[using].vendor not in TRIGGER_VENDORS:
        return False
    return not Catalog(using, [collection]).outdated(collection)


def left_over(using: str, wanted: Iterable[str] | None = None) -> set[str]:
    """Return the names of sources whose triggers exist, though no collection needs them."""
    if connections[using].vendor not in TRIGGER_VENDORS:
        return set()
    if wanted is None:
        wanted = {source.name for c in by_triggers(using) for source in sources(c)}
    return catalog.installed(using).keys() - set(wanted)


def _execute(using: str, statements: Iterable[str], created: Iterable[Source] = ()) -> None:
    """Execute statements in one transaction, so that there is no half state."""
    connection: Any = connections[using]
    forget_installed(using)
    with transaction.atomic(using=using), connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            for statement in statements:
                cursor.execute(statement)
        else:
            _check_rights(cursor, connection, created)
            with _lock_timeout(cursor):
                cursor.execute(";\n".join(statements))
    forget_installed(using)


def _check_rights(cursor: Any, connection: Any, created: Iterable[Source]) -> None:
    """Raise if writes would fail later, since functions run with the rights of this role."""
    tables = {model._meta.db_table for source in created for model in source.used_models}
    if not tables:
        return
    quote_name = connection.ops.quote_name
    cursor.execute(
        "SELECT name FROM unnest(%s::text[], %s::text[]) AS t(name, right_needed) "
        "WHERE NOT has_table_privilege(name, right_needed)",
        [
            [quote_name(LogEvent._meta.db_table), *map(quote_name, tables)],
            ["INSERT", *("SELECT" for _ in tables)],
        ],
    )
    missing = sorted(name for (name,) in cursor.fetchall())
    if missing:
        raise ProgrammingError(f"The role has no rights on {', '.join(missing)}.")


@contextmanager
def _lock_timeout(cursor: Any) -> Iterator[None]:
    """Limit the wait for locks within the block, unless the session has a limit."""
    cursor.execute(
        "SELECT set_config('lock_timeout', %s, true) WHERE current_setting('lock_timeout') = '0'",
        [LOCK_TIMEOUT],
    )
    is_limited = cursor.fetchone() is not None
    yield
    if is_limited:  # after an error, the transaction is rolled back
        cursor.execute("SELECT set_config('lock_timeout', '0', true)")
