"""Capture of bulk writes, such as ``QuerySet.update()``, for which Django sends no signals.

`managers.RealtimeQuerySet` calls these functions with ``write``, the original method. Each runs
in one transaction: it reads the affected rows under their locks, calls ``write``, reads the rows
again and records the changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from django.db import models
from django.db.models import Q

from ..utils.transactions import write_transaction
from .record import is_capture_disabled, record_rows
from .rows import Row, WatchedTable
from .signals import tables_of

CHUNK = 1000  # rows that are read, written and logged at a time

# rows by primary key
Rows = dict[Any, Row]


def update(queryset: Any, write: Callable[[Any], int], using: str) -> int:
    """Update the rows of a queryset and return their number.

    ``write`` is called with querysets of at most `CHUNK` of the rows.
    """
    tables = _tables(queryset.model)
    if not tables:
        return write(queryset)
    count = 0
    with write_transaction(using, queryset.model):
        keys = list(queryset.using(using).order_by().values_list("pk", flat=True))
        for part in _parts(keys):
            befores = [(table, _read(table, using, part, lock=True)) for table in tables]
            count += write(queryset.filter(pk__in=part))
            for table, before in befores:
                after = _read(table, using, part)
                pairs = [(row, after[key]) for key, row in before.items() if key in after]
                record_rows(table, using, pairs)
    return count


def delete(queryset: Any, write: Callable[[], int], using: str) -> int:
    """Delete the rows of a queryset by calling ``write``, and return their number."""
    tables = _tables(queryset.model)
    if not tables:
        return write()
    with write_transaction(using, queryset.model):
        keys = list(queryset.using(using).order_by().values_list("pk", flat=True))
        deleted: list[tuple[WatchedTable, Row]] = []
        for table in tables:
            for part in _parts(keys):
                deleted += [(table, row) for row in _read(table, using, part, lock=True).values()]
        count = write()
        for table, row in deleted:
            record_rows(table, using, [(row, None)])
    return count


def create(
    model: type[models.Model],
    write: Callable[[], list[Any]],
    using: str,
    *,
    objects: Sequence[models.Model],
    inserted: list[Any] | None,
    unique_fields: Collection[str] | None,
) -> list[Any]:
    """Insert ``objects`` by calling ``write``, and return what it returns.

    If conflicts are ignored, ``write`` adds the primary keys that were inserted to ``inserted``;
    otherwise that is None. If conflicting rows are updated, ``unique_fields`` identify them;
    otherwise they are None.
    """
    tables = _tables(model)
    if not tables:
        return write()
    with write_transaction(using, model if unique_fields else None):
        befores: dict[WatchedTable, Rows] = {table: {} for table in tables}
        if unique_fields:
            for table in tables:
                for part in _parts(objects):
                    befores[table] |= _existing(table, using, part, unique_fields)
        instances = write()
        keys = [instance.pk for instance in instances] if inserted is None else inserted
        plain = inserted is None and not unique_fields
        for table in tables:
            # without conflicts, the rows are as the instances: they need not be read
            rows = [table.row_of(instance) for instance in instances] if plain else [None]
            if None not in rows:
                record_rows(table, using, ((None, row) for row in rows))
                continue
            for part in _parts(keys):
                after = _read(table, using, part)
                pairs = [(befores[table].get(key), after[key]) for key in part if key in after]
                record_rows(table, using, pairs)
    return instances


def _tables(model: type[models.Model]) -> tuple[WatchedTable, ...]:
    return () if is_capture_disabled() else tables_of(model)


def _parts(items: Sequence[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, CHUNK)):
        yield part


def _read(table: WatchedTable, using: str, keys: Iterable[Any], *, lock: bool = False) -> Rows:
    rows = table.read_where(using, Q(pk__in=list(keys)), lock=lock)
    return {table.pk_of(row): row for row in rows}


def _existing(
    table: WatchedTable, using: str, objects: Iterable[models.Model], unique_fields: Collection[str]
) -> Rows:
    """Read and lock the rows that have the same unique fields as one of the objects."""
    condition = Q(pk__in=[])
    for instance in objects:
        condition |= Q(**{name: getattr(instance, name) for name in unique_fields})
    return {table.pk_of(row): row for row in table.read_where(using, condition, lock=True)}
