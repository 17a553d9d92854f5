"""The tables whose triggers log the changes of a collection.

These are the table of the collection's model, the tables of the model's parents in multi-table
inheritance, and the through tables of its many-to-many fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2s
from typing import Any

from django.db import models

from ...declarations.capture_mode import Captured
from ...declarations.dependency_table import DependencyTable
from ...log.column_images import table_fields
from ..tables import RelatedTable, WatchedTable, related_tables

TRIGGER_PREFIX = "cocobase_realtime_"
"""Of all names of triggers and of their functions."""
NAME_LENGTH = len(TRIGGER_PREFIX) + 16
"""Characters of the name of a source."""

Tables = Mapping[str, frozenset[str]]
"""Names of the tables whose triggers log, by the names of the sources."""


@dataclass(frozen=True)
class Installed:
    """The triggers of a source as the database has them, in whatever form."""

    # what identifies their form
    digest: str
    # names of the table that has them; empty if they do not log: disabled, incomplete or paused
    tables: frozenset[str]
    # SQL that drops them
    removal: list[str]
    # on PostgreSQL: SQL that lets their function do nothing, without a lock on the table
    pause: list[str]
    # on PostgreSQL: whether a trigger is enabled, by quoted names of its table and of itself
    triggers: dict[tuple[str, str], bool]


@dataclass(frozen=True)
class Source:
    """A table whose changes are logged for a collection."""

    collection: Captured
    # the model that has the table
    model: type[models.Model]
    # set for a through table
    related: RelatedTable | None = None

    @cached_property
    def name(self) -> str:
        """The name of the triggers, without the event for which they are called.

        It stays the same when the table is renamed, and must be the same in all versions of the
        app: processes know by the name and the table whether triggers log for the collection.
        """
        parts = [self.collection.stream]
        if isinstance(self.collection, DependencyTable):
            parts.append(self.collection.label)  # the stream has others as well
        elif self.related is not None:
            parts.append(self.related.field)
        elif not self.is_own:
            parts += ["parent", str(self.tables.index(self.model))]
        return TRIGGER_PREFIX + blake2s("\0".join(parts).encode(), digest_size=8).hexdigest()

    @cached_property
    def tables(self) -> list[type[models.Model]]:
        """The models whose tables hold a row of the collection, its own first."""
        return self.collection.tables

    @property
    def used_models(self) -> list[type[models.Model]]:
        """The models whose tables the triggers use."""
        used = [self.model, *self.tables]
        if self.related is not None and self.related.content_type is not None:
            from django.contrib.contenttypes.models import ContentType

            used.append(ContentType)
        return used

    @property
    def is_single_table(self) -> bool:
        """Whether the table holds complete rows of the collection."""
        return self.related is None and len(self.tables) == 1

    @property
    def is_own(self) -> bool:
        """Whether the table is that of the collection's model, not one of a parent."""
        return self.related is None and self.model is self.tables[0]

    def columns(self, index: int) -> list[str]:
        """Return the columns that images hold of the table with this index in ``tables``."""
        fields = table_fields(self.collection.codec, self.tables[index])
        return [str(field.column) for field in fields]

    def other_columns(self, index: int) -> list[str]:
        """Return the columns that images do not hold of the table with this index."""
        owner, wanted = self.tables[index], set(self.columns(index))
        return [
            str(field.column)
            for field in owner._meta.local_concrete_fields
            if str(field.column) not in wanted
        ]

    @property
    def id_prefix(self) -> str:
        """The beginning of document ids: the label of a dependency table, and a space."""
        captured = self.collection
        return f"{captured.label} " if isinstance(captured, DependencyTable) else ""

    def key_columns(self) -> list[str]:
        """Return the columns of the primary key in the table."""
        return [str(field.column) for field in self.model._meta.pk_fields]


def sources(collection: Captured) -> list[Source]:
    """Return all tables whose changes are logged for a collection."""
    model = collection.concrete_model
    result = [Source(collection, owner) for owner in collection.tables]
    if isinstance(collection, DependencyTable):
        return result
    for related in related_tables(WatchedTable(model, (collection,))):
        # the through model may have several tables itself
        owner = _field(related.through, related.source).model
        result.append(Source(collection, owner._meta.concrete_model or owner, related))
    return result


def joined_tables(
    source: Source, row: str | None, name: Callable[[type[models.Model]], str]
) -> tuple[list[str], str, list[str]]:
    """Return the SQL that joins the other tables of a row to a written row.

    ``row`` is what SQL calls the written row; None if all tables are joined, for a through table.
    ``name`` returns the quoted name of a table. Returns what SQL calls the row of each table in
    ``source.tables``, the FROM clause (empty if no table is joined), and the conditions.
    """
    tables = source.tables
    written = None if row is None else tables.index(source.model)
    aliases = [f"t{index}" for index in range(len(tables))]
    if written is not None:
        assert row is not None
        aliases[written] = row
    clauses, conditions = [], []
    for index, table in enumerate(tables):
        if index == 0:
            if written != 0:
                clauses.append(f"{name(table)} AS {aliases[0]}")
            continue
        child, link = _link(tables, table)
        holder = aliases[child]
        condition = (
            f"{holder}.{quote(link.column)} = {aliases[index]}.{quote(link.target_field.column)}"
        )
        if index == written:
            conditions.append(condition)
        elif clauses:
            clauses.append(f"LEFT JOIN {name(table)} AS {aliases[index]} ON {condition}")
        else:
            clauses.append(
                f"(SELECT 1) AS one LEFT JOIN {name(table)} AS {aliases[index]} ON {condition}"
            )
    return aliases, " ".join(clauses), conditions


def _link(tables: list[type[models.Model]], parent: type[models.Model]) -> tuple[int, Any]:
    """Return the index of a table that refers to a row of a parent's table, and the field."""
    links = ((index, child._meta.parents.get(parent)) for index, child in enumerate(tables))
    return next((index, link) for index, link in links if link is not None)


def related_field(source: Source) -> models.Field[Any, Any]:
    """Return the field of the collection's rows to which rows of a through table refer."""
    assert source.related is not None
    return _field(source.tables[0], source.related.target)


def content_type_condition(
    related: RelatedTable, name_of: Callable[[type[models.Model]], str]
) -> list[tuple[str, str]]:
    """Return attname and SQL value of the content type in a through table that models share."""
    if related.content_type is None:
        return []
    from django.contrib.contenttypes.models import ContentType

    name, model = related.content_type
    label, model_name = text(model._meta.app_label), text(model._meta.model_name)
    return [
        (
            name,
            f"(SELECT id FROM {name_of(ContentType)} "
            f"WHERE app_label = {label} AND model = {model_name})",
        )
    ]


def column_of(model: type[models.Model], attname: str) -> str:
    """Return the column of a field, by the field's attname."""
    return str(_field(model, attname).column)


def reference_columns(source: Source) -> list[str]:
    """Return the columns of a through table that decide what a many-to-many field contains."""
    assert source.related is not None
    fields = source.model._meta.local_concrete_fields
    return sorted(str(f.column) for f in fields if f.attname in source.related.references)


def _field(model: type[models.Model], attname: str) -> models.Field[Any, Any]:
    return next(field for field in model._meta.concrete_fields if field.attname == attname)


def quote(name: str) -> str:
    """Return a name as an SQL identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a string as an SQL literal, quoted."""
    return "'" + value.replace("'", "''") + "'"
