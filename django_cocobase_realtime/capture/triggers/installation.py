"""Installation of triggers, and what is installed now."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any

from django.db import connections, transaction

from ...declarations.capture_mode import TRIGGER_VENDORS as VENDORS
from ...declarations.capture_mode import captured_by
from ...declarations.collection import Collection
from ...declarations.registry import registry
from ...utils.transactions import call_on_commit, own_statements
from . import postgres, sqlite
from .sources import TRIGGER_PREFIX, Source, sources

# names of the installed and current triggers by (alias, database name), once they were looked up
_current: dict[tuple[str, str], frozenset[str]] = {}


def by_triggers(using: str | None = None) -> list[Collection]:
    """Return the collections that are captured by triggers, in one database or in all."""
    return [
        collection
        for collection in registry
        if captured_by(collection) == "triggers" and using in (None, collection.database)
    ]


def install(*collections: Collection) -> bool:
    """Create the triggers of collections in one database, or replace those that are outdated.

    Returns whether there was anything to do. Raises ``ValueError`` if the app has no triggers for
    the database, ``LookupError`` if there is no table, and the exceptions of the database; then,
    nothing was changed.
    """
    if not collections:
        return False
    using = collections[0].database
    vendor = connections[using].vendor
    if vendor not in VENDORS:
        raise ValueError(
            f"Triggers need PostgreSQL or SQLite; {collections[0].name!r} is in {vendor}."
        )
    missing = _missing(using, [source for c in collections for source in sources(c)])
    statements: list[str] = []
    for source in missing:
        statements += _install_sql(using, source)
    if statements:
        _execute(using, statements)
    return bool(missing)


def remove(collection: Collection) -> bool:
    """Drop the triggers of a collection; return whether they were installed and up to date."""
    was_installed = is_installed(collection)
    using = collection.database
    if connections[using].vendor in VENDORS:
        _drop(using, {source.name for source in sources(collection)})
    return was_installed


def is_installed(collection: Collection) -> bool:
    """Return whether all triggers of a collection exist, are enabled, and are up to date."""
    using = collection.database
    return connections[using].vendor in VENDORS and not _missing(using, sources(collection))


def absent_names(using: str, collections: Iterable[Collection]) -> set[str]:
    """Return the names of triggers that do not exist in whatever form."""
    wanted = {name for collection in collections for name in source_names(collection)}
    return wanted - _installed_names(using)


def remove_others(using: str, collections: Iterable[Collection]) -> bool:
    """Drop the app's triggers in a database that belong to other collections than these."""
    wanted = {name for collection in collections for name in source_names(collection)}
    return _drop(using, _installed_names(using) - wanted)


def remove_all(using: str, *, but_lasting: bool = False) -> bool:
    """Drop the app's triggers in a database; return whether there were any.

    With ``but_lasting``, those are kept that a change of the schema cannot harm: on PostgreSQL,
    those of tables with complete rows.
    """
    kept: set[str] = set()
    if but_lasting and connections[using].vendor == "postgresql":
        kept = {
            source.name
            for collection in by_triggers(using)
            for source in sources(collection)
            if source.is_single_table
        }
    return _drop(using, _installed_names(using) - kept)


def logs_by_triggers(collection: Collection) -> bool:
    """Return whether the triggers of a collection log its changes, so that nothing else must.

    It is looked up once. While they are not installed, it is looked up for each write.
    """
    using = collection.database
    key = using, str(connections[using].settings_dict["NAME"])
    names = source_names(collection)
    known = _current.get(key)
    if known is None or not names <= known:
        with own_statements(using):
            if not is_installed(collection):
                return False
        if not _changed_in_transaction(using):
            _current[key] = (known or frozenset()) | names
    return True


@lru_cache(maxsize=4096)
def source_names(collection: Collection) -> frozenset[str]:
    """Return the names of all sources of a collection."""
    return frozenset(source.name for source in sources(collection))


def forget_installed(using: str | None = None) -> None:
    """Look up again which triggers are installed."""
    for key in [key for key in _current if using in (None, key[0])]:
        del _current[key]


def _changed_in_transaction(using: str) -> bool:
    """Return whether triggers were created or dropped in the open transaction."""
    connection: Any = connections[using]
    changed_in = getattr(connection, "_realtime_triggers_changed_in", None)
    return bool(connection.atomic_blocks) and connection.atomic_blocks[0] is changed_in


def _missing(using: str, wanted: list[Source]) -> list[Source]:
    """Return the sources whose triggers do not exist, are disabled, or are not up to date."""
    connection = connections[using]
    if connection.vendor == "sqlite":
        groups = sqlite.installed(using, TRIGGER_PREFIX)
        return [
            source
            for source in wanted
            if groups.get(source.name, ("",))[0] != sqlite.digest(source)
        ]
    functions = postgres.installed(using)
    names = postgres.Names(using)
    return [
        source
        for source in wanted
        if not _is_current(source, functions.get(source.name), using, names)
    ]


def _is_current(
    source: Source, current: postgres.Installed | None, using: str, names: postgres.Names
) -> bool:
    """Return whether what is installed on PostgreSQL is what a source needs now."""
    if current is None:
        return False
    try:
        by_row = postgres.needs_row_triggers(source, using, names)
        table, count = names(source.model), postgres.trigger_count(source, by_row=by_row)
        return (
            current.digest == postgres.digest(source, names, by_row=by_row)
            and current.tables == [table] * count
        )
    except LookupError:  # there is no table
        return False


def _install_sql(using: str, source: Source) -> list[str]:
    if connections[using].vendor == "sqlite":
        if not sqlite.has_table(using, source.model):
            raise LookupError(f"There is no table {source.model._meta.db_table}.")
        old = sqlite.installed(using, TRIGGER_PREFIX).get(source.name)
        return [*sqlite.remove_sql(old[1] if old else ()), *sqlite.install_sql(source)]
    names = postgres.Names(using)
    by_row = postgres.needs_row_triggers(source, using, names)
    statements = postgres.install_sql(source, names, by_row=by_row)
    current = postgres.installed(using).get(source.name)
    if current is not None and not {*current.tables} <= {names(source.model)}:
        # the table was renamed, and there is another one in its place
        return [*postgres.remove_sql([current.function]), *statements]
    return statements


def _installed_names(using: str) -> set[str]:
    if connections[using].vendor == "sqlite":
        return set(sqlite.installed(using, TRIGGER_PREFIX))
    return set(postgres.installed(using))


def _drop(using: str, names: set[str]) -> bool:
    """Drop triggers by the names of their sources; return whether there were any."""
    if connections[using].vendor == "sqlite":
        groups = sqlite.installed(using, TRIGGER_PREFIX)
        triggers = [name for group in names & groups.keys() for name in groups[group][1]]
        statements = sqlite.remove_sql(sorted(triggers))
    else:
        functions = postgres.installed(using)
        statements = postgres.remove_sql(
            sorted(functions[name].function for name in names & functions.keys())
        )
    if statements:
        _execute(using, statements)
    return bool(statements)


def _execute(using: str, statements: list[str]) -> None:
    """Execute statements in one transaction, so that there is no half state."""
    forget_installed(using)
    connection: Any = connections[using]
    with transaction.atomic(using=using), connection.cursor() as cursor:
        connection._realtime_triggers_changed_in = connection.atomic_blocks[0]
        # other threads see the change when it is committed
        call_on_commit(using, partial(forget_installed, using))
        for statement in statements:
            cursor.execute(statement)
