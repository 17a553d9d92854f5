"""The tables and triggers of a database, compared with what its collections need."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connections, models

from ...declarations.capture_mode import Captured
from ...models import LogEvent
from . import postgres, sqlite
from .sources import Installed, Source, Tables, sources


def installed(using: str) -> dict[str, Installed]:
    """Return the installed triggers of the app, by the names of the sources."""
    if connections[using].vendor == "sqlite":
        return sqlite.installed(using)
    return postgres.installed(using)


def logged_tables(using: str) -> Tables:
    """Return the tables whose triggers log, by the names of the sources."""
    if connections[using].vendor == "sqlite":
        return sqlite.logged_tables(using)
    present = postgres.installed(using)
    return {name: triggers.tables for name, triggers in present.items() if triggers.tables}


class Catalog:
    """Tables and triggers of one database, as they were when this object was created."""

    def __init__(self, using: str, collections: Iterable[Captured]) -> None:
        self.is_sqlite = connections[using].vendor == "sqlite"
        self.sources = {collection: sources(collection) for collection in collections}
        self.installed = installed(using)
        all_sources = [source for group in self.sources.values() for source in group]
        if self.is_sqlite:
            self._table_names = sqlite.table_names(using)
        else:
            self._names = postgres.Names(using, (m for s in all_sources for m in s.used_models))

    def has_table(self, model: type[models.Model]) -> bool:
        """Return whether the table of a model exists."""
        if self.is_sqlite:
            return model._meta.db_table.strip('"').lower() in self._table_names
        return model in self._names

    def outdated(self, collection: Captured) -> list[Source]:
        """Return the sources whose triggers do not exist, are disabled, or are not up to date."""
        return [s for s in self.sources[collection] if not self._is_current(s)]

    def has_gap(self, source: Source) -> bool:
        """Return whether changes of a source may have been logged wrongly, or not at all."""
        present = self.installed.get(source.name)
        if present is None or not is_present(source, {source.name: present.tables}):
            return True
        return not self.is_sqlite and postgres.has_other_keys(source, self._names, present)

    def install_sql(self, source: Source) -> list[str]:
        """Return the statements that create or replace triggers.

        Raises ``LookupError`` if there is no table. Without the log, writes would fail.
        """
        needed: list[type[models.Model]] = [LogEvent, *source.used_models]
        for model in needed:
            if not self.has_table(model):
                raise LookupError(f"There is no table {model._meta.db_table}.")
        present = self.installed.get(source.name)
        if self.is_sqlite:
            return [*(present.removal if present else ()), *sqlite.install_sql(source)]
        return postgres.install_sql(source, self._names, present)

    def _is_current(self, source: Source) -> bool:
        present = self.installed.get(source.name)
        if self.is_sqlite:
            return present is not None and present.digest == sqlite.digest(source)
        return postgres.is_current(source, self._names, present)


def is_present(source: Source, logged: Tables) -> bool:
    """Return whether triggers log the changes of a source, in whatever form."""
    tables = logged.get(source.name)
    # in names with a schema, the quotes are between it and the table
    table = source.model._meta.db_table.strip('"')
    return tables is not None and not tables.isdisjoint((table, table.lower()))
