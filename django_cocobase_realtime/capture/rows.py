"""Watched tables: their collections, and reading rows before and after a write.

The row before a write is read from the database, under its lock and in the transaction of the
write. It is not taken from the instance, which may be out of date.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db import connections, models
from django.db.models import Q

from ..declarations.collection import Collection
from ..declarations.serialization import RowCodec
from ..events import Image

# a row's values by attname (such as "author_id"), as Python values
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Statement:
    """A query for one row by primary key, compiled once.

    Each save runs such a query, and compiling it takes longer than running it.
    """

    # with one placeholder, for the key
    sql: str
    # the ORM's SQL compiler of the query
    compiler: Any
    # the compiler's converters of database values to Python values
    converters: Any
    # the names of the selected columns
    attnames: tuple[str, ...]

    @classmethod
    def of(
        cls, rows: models.QuerySet[Any], using: str, attnames: tuple[str, ...]
    ) -> Statement | None:
        """Compile a queryset that selects one key, or return None if it has other parameters."""
        compiler: Any = rows.query.get_compiler(using)
        sql, params = compiler.as_sql()
        expressions = [expression for expression, _, _ in compiler.select]
        converters = compiler.get_converters(expressions)
        return cls(sql, compiler, converters, attnames) if len(params) == 1 else None

    def first(self, model: type[models.Model], pk: Any) -> Row | None:
        """Return the row with this key, or None."""
        connection = connections[self.compiler.using]
        prepared = model._meta.pk.get_db_prep_value(pk, connection)
        with connection.cursor() as cursor:
            cursor.execute(self.sql, [prepared])
            values = cursor.fetchone()
        if values is None:
            return None
        if self.converters:
            (values,) = self.compiler.apply_converters([values], self.converters)
        return dict(zip(self.attnames, values, strict=True))


@dataclass(frozen=True, eq=False)
class WatchedTable:
    """A concrete model and the collections that show its rows."""

    model: type[models.Model]
    collections: tuple[Collection, ...]
    # the columns that at least one of the collections needs
    attnames: tuple[str, ...] = field(init=False)
    # by database alias and whether the row is locked
    _statements: dict[tuple[str, bool], Statement] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        names = dict.fromkeys(n for c in self.collections for n in c.codec.attnames)
        object.__setattr__(self, "attnames", tuple(names))

    @property
    def tracked(self) -> bool:
        """Whether a collection needs the row before a write (``track``)."""
        return any(collection.track for collection in self.collections)

    def read(self, using: str, pk: Any, *, lock: bool) -> Row | None:
        """Return the row as it is in the database, or None.

        With ``lock``, no other transaction can change it until this one ends.
        """
        statement = self._statements.get((using, lock))
        if statement is None:
            rows = self._rows(using, lock).filter(pk=pk).values(*self.attnames)
            statement = Statement.of(rows, using, self.attnames)
            if statement is None:  # the model's base manager has filters of its own
                return rows.first()
            self._statements[using, lock] = statement
        return statement.first(self.model, pk)

    def read_where(self, using: str, where: Q, *, lock: bool) -> list[Row]:
        """Return the rows that match a condition, ordered by primary key."""
        return list(self._rows(using, lock).filter(where).order_by("pk").values(*self.attnames))

    def _rows(self, using: str, lock: bool) -> models.QuerySet[Any]:
        rows = self.model._base_manager.using(using).order_by()
        if lock and connections[using].features.has_select_for_update:
            # a multi-table row is locked in each of its tables
            rows = rows.select_for_update()
        return rows

    def row_of(self, instance: models.Model) -> Row | None:
        """Return the row as an instance has just written it.

        Returns None if the instance does not have all values: if a field is deferred, generated
        by the database, or was set to an expression such as ``F("votes") + 1``.
        """
        if any(collection.codec.generated for collection in self.collections):
            return None
        values = instance.__dict__
        try:
            row = {name: values[name] for name in self.attnames}
        except KeyError:
            return None
        has_expression = any(hasattr(value, "resolve_expression") for value in row.values())
        return None if has_expression else row

    def pk_of(self, row: Row) -> Any:
        """Return the primary key of a row."""
        return row[self.model._meta.pk.attname]

    def codecs(self) -> Iterator[tuple[RowCodec, list[Collection]]]:
        """Yield each codec with the collections that share it."""
        groups: dict[RowCodec, list[Collection]] = {}
        for collection in self.collections:
            groups.setdefault(collection.codec, []).append(collection)
        yield from groups.items()


def after_image(
    codec: RowCodec,
    instance: models.Model | None,
    update_fields: frozenset[str] | None,
    before: Image | None,
) -> Image | None:
    """Return the image of a row after a save, from the instance that was saved.

    Returns None if the instance does not have all values, so that the row must be read. A save
    with ``update_fields`` writes only these; the other values are taken from ``before``.
    """
    if instance is None:
        return None
    if update_fields is None:
        return codec.from_instance(instance)
    if before is None:
        return None
    written = codec.from_update_fields(instance, update_fields)
    return None if written is None or codec.generated else {**before, **written}
