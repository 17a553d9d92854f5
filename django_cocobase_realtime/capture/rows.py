"""Watched tables: which collections show them, and their rows as they are before a write.

A before-image is read under the row's lock in the writer's own transaction, never taken from
the instance, which may be stale.
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

Row = dict[str, Any]
"""Values by attname, as the database has them."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A read by key whose SQL was compiled once: each save pays for it, and compiling is most."""

    sql: str
    compiler: Any
    converters: Any
    attnames: tuple[str, ...]

    @classmethod
    def of(
        cls, rows: models.QuerySet[Any], using: str, attnames: tuple[str, ...]
    ) -> Statement | None:
        """From a query for one key; None where it has other parameters too."""
        compiler: Any = rows.query.get_compiler(using)
        sql, params = compiler.as_sql()
        expressions = [expression for expression, _, _ in compiler.select]
        converters = compiler.get_converters(expressions)
        return cls(sql, compiler, converters, attnames) if len(params) == 1 else None

    def first(self, model: type[models.Model], pk: Any) -> Row | None:
        """The row with this key, or None."""
        connection = connections[self.compiler.using]
        prepared = model._meta.pk.get_db_prep_value(pk, connection)
        with connection.cursor() as cursor:
            cursor.execute(self.sql, [prepared])
            found = cursor.fetchone()
        if found is None:
            return None
        if self.converters:
            (found,) = self.compiler.apply_converters([found], self.converters)
        return dict(zip(self.attnames, found, strict=True))


@dataclass(frozen=True, eq=False)
class WatchedTable:
    """A concrete model and the collections that show its rows."""

    model: type[models.Model]
    collections: tuple[Collection, ...]
    attnames: tuple[str, ...] = field(init=False)
    _statements: dict[tuple[str, bool], Statement] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        names = dict.fromkeys(n for c in self.collections for n in c.codec.attnames)
        object.__setattr__(self, "attnames", tuple(names))

    @property
    def tracked(self) -> bool:
        """Whether any of its collections wants old values."""
        return any(collection.track for collection in self.collections)

    def read(self, using: str, pk: Any, *, lock: bool) -> Row | None:
        """The row as it is now, None where there is none; ``lock`` holds it till commit."""
        statement = self._statements.get((using, lock))
        if statement is None:
            rows = self._rows(using, lock).filter(pk=pk).values(*self.attnames)
            statement = Statement.of(rows, using, self.attnames)
            if statement is None:  # the project's base manager filters
                return rows.first()
            self._statements[using, lock] = statement
        return statement.first(self.model, pk)

    def read_where(self, using: str, where: Q, *, lock: bool) -> list[Row]:
        """Rows by a condition of ours, in the order of their keys."""
        return list(self._rows(using, lock).filter(where).order_by("pk").values(*self.attnames))

    def _rows(self, using: str, lock: bool) -> models.QuerySet[Any]:
        rows = self.model._base_manager.using(using).order_by()
        if lock and connections[using].features.has_select_for_update:
            # a multi-table row is locked in each of its tables
            rows = rows.select_for_update()
        return rows

    def row_of(self, instance: models.Model) -> Row | None:
        """The row as an instance wrote it; None where only the database knows it."""
        if any(collection.codec.generated for collection in self.collections):
            return None
        held = instance.__dict__
        try:
            row = {name: held[name] for name in self.attnames}
        except KeyError:
            return None
        expressions = any(hasattr(value, "resolve_expression") for value in row.values())
        return None if expressions else row

    def pk_of(self, row: Row) -> Any:
        """The key in a row that was read."""
        return row[self.model._meta.pk.attname]

    def codecs(self) -> Iterator[tuple[RowCodec, list[Collection]]]:
        """Collections by the codec that they share."""
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
    """What a save left in the row, told from the instance; None where a look is needed."""
    if instance is None:
        return None
    if update_fields is None:
        return codec.from_instance(instance)
    if before is None:
        return None
    written = codec.from_update_fields(instance, update_fields)
    return None if written is None or codec.generated else {**before, **written}
