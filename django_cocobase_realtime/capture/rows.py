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

from ..collection import Collection
from ..documents import RowCodec
from ..events import Image

Row = dict[str, Any]
"""Values by attname, as the database has them."""


@dataclass(frozen=True, eq=False)
class WatchedTable:
    """A concrete model and the collections that show its rows."""

    model: type[models.Model]
    collections: tuple[Collection, ...]
    attnames: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = dict.fromkeys(n for c in self.collections for n in c.codec.attnames)
        object.__setattr__(self, "attnames", tuple(names))

    @property
    def tracked(self) -> bool:
        """Whether any of its collections wants old values."""
        return any(collection.track for collection in self.collections)

    def read(self, using: str, pk: Any, *, lock: bool) -> Row | None:
        """The row as it is now, None where there is none; ``lock`` holds it till commit."""
        rows = self._rows(using, lock)
        return rows.filter(pk=pk).values(*self.attnames).first()

    def read_where(self, using: str, where: Q, *, lock: bool) -> list[Row]:
        """Rows by a condition of ours, in the order of their keys."""
        return list(self._rows(using, lock).filter(where).order_by("pk").values(*self.attnames))

    def _rows(self, using: str, lock: bool) -> models.QuerySet[Any]:
        rows = self.model._base_manager.using(using).order_by()
        if lock and connections[using].features.has_select_for_update:
            # a multi-table row is locked in each of its tables
            rows = rows.select_for_update()
        return rows

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
        return codec.of_instance(instance)
    if before is None:
        return None
    written = codec.written(instance, update_fields)
    return None if written is None or codec.generated else {**before, **written}
