"""Bulk writes: what ``QuerySet.update`` and its like do to watched rows, which send no signals.

Used by `managers.RealtimeQuerySet`. Each works in one transaction: the rows are read under their
locks, written, read again, and logged.
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

CHUNK = 1000  # rows read, written and logged at a time

Rows = dict[Any, Row]


def update(queryset: Any, write: Callable[[Any], int], using: str) -> int:
    """``write`` updates the rows of the queryset that it is given; all of ours, part by part."""
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
    """``write`` deletes the queryset's rows without a signal."""
    tables = _tables(queryset.model)
    if not tables:
        return write()
    with write_transaction(using, queryset.model):
        keys = list(queryset.using(using).order_by().values_list("pk", flat=True))
        gone: list[tuple[WatchedTable, Row]] = []
        for table in tables:
            for part in _parts(keys):
                gone += [(table, row) for row in _read(table, using, part, lock=True).values()]
        count = write()
        for table, row in gone:
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
    """``write`` inserts ``objects``.

    ``inserted`` holds, afterwards, the keys that were really inserted, where conflicts are
    ignored; ``unique_fields`` tell which rows exist already, where they are updated instead.
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
        made = write()
        keys = [each.pk for each in made] if inserted is None else inserted
        plain = inserted is None and not unique_fields
        for table in tables:
            # nothing but what the instances hold was written, unless conflicts were resolved
            rows = [table.row_of(each) for each in made] if plain else [None]
            if None not in rows:
                record_rows(table, using, ((None, row) for row in rows))
                continue
            for part in _parts(keys):
                after = _read(table, using, part)
                pairs = [(befores[table].get(key), after[key]) for key in part if key in after]
                record_rows(table, using, pairs)
    return made


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
    wanted = Q(pk__in=[])
    for each in objects:
        wanted |= Q(**{name: getattr(each, name) for name in unique_fields})
    return {table.pk_of(row): row for row in table.read_where(using, wanted, lock=True)}
