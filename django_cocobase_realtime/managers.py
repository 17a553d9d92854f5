"""A manager that captures bulk writes, for models without database triggers.

With ``objects = RealtimeManager()`` in a model, clients also get events for the bulk writes
``update``, ``bulk_update``, ``bulk_create`` (also with ``ignore_conflicts`` and
``update_conflicts``) and deletions of querysets. The rows are read before and after a write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.constants import OnConflict

if TYPE_CHECKING:
    QuerySet = models.QuerySet[Any]
else:
    QuerySet = models.QuerySet


class RealtimeQuerySet(QuerySet):
    """A queryset whose bulk writes are captured."""

    # read by a system check, which warns about managers that do not capture bulk writes
    captures_bulk_writes = True
    # while `bulk_create` ignores conflicts: the primary keys that were inserted; otherwise None
    _inserted: list[Any] | None = None

    def _write_alias(self) -> str:
        self._for_write = True
        return str(self.db)

    def update(self, **kwargs: Any) -> int:
        """Update rows and capture the changes in the same transaction."""
        from .capture import bulk

        def write(part: Any) -> int:
            return int(models.QuerySet.update(part, **kwargs))

        return bulk.update(self, write, self._write_alias())

    update.alters_data = True  # type: ignore[attr-defined]

    def _raw_delete(self, using: str | None) -> int:
        """Delete rows for which Django sends no signals, and capture the deletions."""
        from .capture import bulk

        def write() -> int:
            return int(super(RealtimeQuerySet, self)._raw_delete(using))

        return bulk.delete(self, write, using or self._write_alias())

    _raw_delete.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(
        self,
        objs: Iterable[Any],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[Any]:
        """Insert rows and capture those that were inserted or updated."""
        from .capture import bulk

        objects = list(objs)

        def write() -> list[Any]:
            return list(
                super(RealtimeQuerySet, self).bulk_create(
                    objects,
                    batch_size=batch_size,
                    ignore_conflicts=ignore_conflicts,
                    update_conflicts=update_conflicts,
                    update_fields=update_fields,
                    unique_fields=unique_fields,
                )
            )

        self._inserted = [] if ignore_conflicts else None
        try:
            return bulk.create(
                self.model,
                write,
                self._write_alias(),
                objects=objects,
                inserted=self._inserted,
                unique_fields=unique_fields if update_conflicts else None,
            )
        finally:
            self._inserted = None

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def _insert(self, objs: Any, fields: Any, **kwargs: Any) -> Any:
        """Insert rows and, if conflicts are ignored, note which ones were inserted."""
        if self._inserted is None or kwargs.get("on_conflict") is not OnConflict.IGNORE:
            return super()._insert(objs, fields, **kwargs)  # type: ignore[misc]
        kwargs["returning_fields"] = [self.model._meta.pk]
        rows = super()._insert(objs, fields, **kwargs)  # type: ignore[misc]
        self._inserted += [row[0] for row in rows]
        return rows


# the manager that projects use: `objects = RealtimeManager()`
RealtimeManager = models.Manager.from_queryset(RealtimeQuerySet, "RealtimeManager")
