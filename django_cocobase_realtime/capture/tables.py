"""The tables that collections show, and how to read their rows as the database holds them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import connections, models
from django.db.models import Q, QuerySet

from ..declarations.capture_mode import Captured
from ..declarations.collection import Collection
from ..declarations.row_reader import Row, RowReader
from ..declarations.serialization import RowCodec, document_id, has_custom_key, raw_column

MAX_KEYS = 500
"""Primary keys in one query."""

Rows = dict[Hashable, Row]
"""Rows of one table by what identifies them, see `identify`."""


@dataclass(frozen=True, eq=False)
class WatchedTable:
    """A concrete model and the collections that show its rows.

    The rows of a multi-table child are in several tables: those of the model and of its parents.
    Among ``collections`` can be the dependency table of the model, if its rows are in one table.
    Else it is watched on its own: its rows are those of the model's own table alone.
    """

    model: type[models.Model]
    collections: tuple[Captured, ...]
    _readers: dict[str, RowReader] = field(default_factory=dict, repr=False)
    _selects: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)
    _limited: dict[tuple[Captured, ...], WatchedTable] = field(default_factory=dict, repr=False)

    @cached_property
    def fields(self) -> tuple[models.Field[Any, Any], ...]:
        """The fields of all images, the primary key first."""
        named = {name for c in self.collections for name in c.codec.fields}
        keys = self.model._meta.pk_fields
        others = [f for f in self.model._meta.concrete_fields if f.name in named and f not in keys]
        return (*keys, *others)

    @cached_property
    def raw_names(self) -> frozenset[str]:
        """Names of the fields whose column value images hold (see `RowCodec.raw_names`)."""
        return frozenset(name for c in self.collections for name in c.codec.raw_names)

    @cached_property
    def is_joined(self) -> bool:
        """Whether the rows are in several tables."""
        return len(self.tables) > 1

    @property
    def tables(self) -> list[type[models.Model]]:
        """The models whose tables hold a row."""
        return self.collections[0].tables

    @cached_property
    def tracked(self) -> bool:
        """Whether a collection needs the row as it was before an update."""
        return any(collection.track for collection in self.collections)

    @cached_property
    def codecs(self) -> list[tuple[RowCodec, list[Captured]]]:
        """Each codec with the collections that use it."""
        groups: dict[tuple[Any, ...], tuple[RowCodec, list[Captured]]] = {}
        for collection in self.collections:
            codec = collection.codec
            groups.setdefault((type(codec), *codec.fields), (codec, []))[1].append(collection)
        return list(groups.values())

    def limited_to(self, collections: Sequence[Captured]) -> WatchedTable | None:
        """Return the table as it is watched for some of its collections; None for none of them.

        It is the same object for the same collections.
        """
        if len(collections) == len(self.collections):
            return self
        key = tuple(collections)
        if key and key not in self._limited:
            self._limited[key] = WatchedTable(self.model, key)
        return self._limited.get(key)

    def reader(self, using: str) -> RowReader:
        """Return the reader of the table's own columns."""
        reader = self._readers.get(using)
        if reader is None:
            reader = RowReader(self.fields, self.raw_names, self.model, using)
            self._readers[using] = reader
        return reader

    def key_of(self, row: Row) -> Any:
        """Return the primary key of a row: a value, or a tuple for a composite key."""
        return key_in(self.model, row)

    def identity_of(self, row: Row) -> Hashable:
        """Return what identifies a row, see `identify`."""
        return identify(self.model, key_in(self.model, row))

    def row_of(self, instance: models.Model, using: str) -> Row:
        """Return the row that an instance stands for, which may be deleted already."""
        connection = connections[using]
        return {
            name: f.get_db_prep_save(getattr(instance, name), connection)
            if f.name in self.raw_names
            else getattr(instance, name)
            for f, name in zip(self.fields, self.attnames, strict=True)
        }

    # reading

    def read_one(self, using: str, key: Any, lock: str = "") -> Row | None:
        """Return the row with a primary key, by SQL that is compiled once.

        ``lock`` is a suffix such as ``FOR NO KEY UPDATE``. Only for rows in one table.
        """
        connection = connections[using]
        reader = self.reader(using)
        keys = self.model._meta.pk_fields
        sql = self._selects.get((using, lock))
        if sql is None:
            quote = connection.ops.quote_name
            where = " AND ".join(f"{quote(str(f.column))} = %s" for f in keys)
            table = quote(self.model._meta.db_table)
            sql = f"SELECT {', '.join(reader.columns)} FROM {table} WHERE {where} {lock}"  # noqa: S608
            self._selects[using, lock] = sql
        values = key if len(keys) > 1 else (key,)
        params = [f.get_db_prep_value(v, connection) for f, v in zip(keys, values, strict=True)]
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            values = cursor.fetchone()
        return None if values is None else reader.row(values)

    def read(self, using: str, keys: Iterable[Any]) -> Rows:
        """Return the rows with these primary keys."""
        rows: Rows = {}
        for part in in_parts(list(keys)):
            rows |= self.read_where(using, Q(pk__in=part))
        return rows

    def read_where(self, using: str, where: Any, *, lock: bool = False) -> Rows:
        """Return the rows that match a condition, in the order of keys."""
        queryset: Any = QuerySet(self.model, using=using).filter(where).order_by("pk")
        if lock and connections[using].features.has_select_for_update:
            no_key = connections[using].features.has_select_for_no_key_update
            queryset = queryset.select_for_update(no_key=no_key)
        names = self.attnames
        selected = queryset.values_list(
            *(
                raw_column(models.F(name), True) if f.name in self.raw_names else name
                for f, name in zip(self.fields, names, strict=True)
            )
        )
        rows = (dict(zip(names, values, strict=True)) for values in selected)
        return {self.identity_of(row): row for row in rows}

    @cached_property
    def attnames(self) -> tuple[str, ...]:
        """Attnames of ``fields``."""
        return tuple(str(f.attname) for f in self.fields)

    def path_from(self, parent: type[models.Model]) -> str:
        """Return the lookup from this model's rows to the primary key of a parent's row."""
        if parent is self.model:
            return "pk"
        links = self.model._meta.get_path_to_parent(parent)
        return "__".join(link.join_field.name for link in links)


@dataclass(frozen=True)
class RelatedTable:
    """A watched table with a many-to-many field, as seen from the field's through table."""

    table: WatchedTable
    # name of the many-to-many field
    field: str
    # the model of the rows that connect the two sides
    through: type[models.Model]
    # attname of the through model's reference to the watched row
    source: str
    # attname of the watched row's field that it refers to
    target: str
    # attnames of all references of the through model that decide what the field contains
    references: frozenset[str]
    # attname and value of the content type, for a through table that several models share
    content_type: tuple[str, Any] | None = None


class WatchedTables:
    """All watched tables, found by the name of a database table that is written."""

    def __init__(self, tables: Iterable[WatchedTable]) -> None:
        # tables whose rows show columns of a database table: its own, and multi-table children
        self._shown: dict[str, list[WatchedTable]] = {}
        self._related: dict[str, list[RelatedTable]] = {}
        for table in tables:
            for model in table.tables:
                self._shown.setdefault(model._meta.db_table, []).append(table)
            # a dependency table has no many-to-many fields: through tables are named as well
            shown = table.limited_to([c for c in table.collections if isinstance(c, Collection)])
            for related in () if shown is None else related_tables(shown):
                self._related.setdefault(related.through._meta.db_table, []).append(related)

    def __bool__(self) -> bool:
        return bool(self._shown)

    def showing(self, model: type[models.Model]) -> list[WatchedTable]:
        """Return the watched tables whose rows show columns of the model's table."""
        return self._shown.get(model._meta.db_table, [])

    def related(self, model: type[models.Model]) -> list[RelatedTable]:
        """Return the watched tables whose many-to-many field uses the model's table."""
        return self._related.get(model._meta.db_table, [])


def related_tables(table: WatchedTable) -> list[RelatedTable]:
    """Return the many-to-many fields of a watched table, as seen from their through tables."""
    fields = table.model._meta.many_to_many
    return [related for m2m in fields if (related := _related_table(table, m2m)) is not None]


def _related_table(table: WatchedTable, m2m: Any) -> RelatedTable | None:
    through = m2m.remote_field.through
    if isinstance(m2m, models.ManyToManyField):
        source = through._meta.get_field(m2m.m2m_field_name())
        if len(source.foreign_related_fields) != 1:
            return None  # a `ForeignObject` of several columns, which is not supported
        other = through._meta.get_field(m2m.m2m_reverse_field_name())
        columns = (*source.local_related_fields, *other.local_related_fields)
        references = frozenset(str(f.attname) for f in columns)
        target = source.target_field.attname
        return RelatedTable(table, m2m.name, through, source.attname, target, references)
    # a manager of tags, or the like, through a model with a generic foreign key
    pk = str(table.model._meta.pk.attname)
    references = frozenset(str(f.attname) for f in through._meta.concrete_fields if f.is_relation)
    for generic in getattr(through._meta, "private_fields", ()):
        names = getattr(generic, "ct_field", None), getattr(generic, "fk_field", None)
        if None not in names:
            content_type, source = through._meta.get_field(names[0]).attname, str(names[1])
            model = content_type, table.model
            return RelatedTable(table, m2m.name, through, source, pk, references | {source}, model)
    for candidate in through._meta.concrete_fields:
        related: Any = candidate.remote_field
        if related is not None and related.model is table.model:
            target = related.field.target_field.attname
            return RelatedTable(table, m2m.name, through, candidate.attname, target, references)
    return None


def watched_tables(captured: Iterable[Captured]) -> list[WatchedTable]:
    """Return the tables of collections and dependency tables; one for all with the same rows."""
    groups: dict[tuple[type[models.Model], ...], list[Captured]] = {}
    for one in captured:
        groups.setdefault(tuple(one.tables), []).append(one)
    return [
        WatchedTable(collections[0].concrete_model, tuple(collections))
        for collections in groups.values()
    ]


def key_in(model: type[models.Model], row: Row) -> Any:
    """Return the primary key of a row of the model's table: a value, or a tuple of values."""
    values = tuple(row[str(f.attname)] for f in model._meta.pk_fields)
    return values[0] if len(values) == 1 else values


def identify(model: type[models.Model], key: Any) -> Hashable:
    """Return what identifies a row with this primary key, to compare it with others.

    It is the key itself. Values of a field of the project may be neither comparable nor hashable:
    for these it is the id of the document.
    """
    return document_id(model, key) if has_custom_key(model) else key


def identified(model: type[models.Model], rows: Iterable[Row]) -> Rows:
    """Return rows of the model's table by what identifies them."""
    return {identify(model, key_in(model, row)): row for row in rows}


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return each value once; values that cannot be hashed may be repeated."""
    values = list(values)
    try:
        return list(dict.fromkeys(values))
    except TypeError:
        return values


def in_parts(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield keys in parts that one query can have."""
    for start in range(0, len(keys), MAX_KEYS):
        yield keys[start : start + MAX_KEYS]


def image_columns_exist(table: WatchedTable, model: type[models.Model]) -> bool:
    """Return whether a (historical) model has all columns of the table's images."""
    if model is table.model:
        return True
    try:
        return all(
            model._meta.get_field(f.name).column == f.column  # type: ignore[union-attr]
            for f in table.fields
        )
    except FieldDoesNotExist:
        return False
