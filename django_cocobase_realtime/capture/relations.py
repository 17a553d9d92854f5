"""Captures changes of many-to-many fields, by the rows of their through tables."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet

from ..utils.transactions import own_statements
from .recorder import record
from .tables import RelatedTable, Row
from .targets import WriteTarget, through_names


def record_related(target: WriteTarget, using: str, rows: list[Row]) -> None:
    """Record the rows whose many-to-many field changed with rows of its through table."""
    for related in target.related:
        keys = dict.fromkeys(row[related.source] for row in rows if _concerns(related, row, using))
        if not keys:
            continue
        table = related.table
        with own_statements(using):
            related_rows = table.read_where(using, Q(**{f"{related.target}__in": list(keys)}))
        changed = (related.field,)
        record(table, using, [(row, row, "updated") for row in related_rows.values()], changed)


def _concerns(related: RelatedTable, row: Row, using: str) -> bool:
    if row.get(related.source) is None:
        return False
    if related.content_type is None:
        return True
    from django.contrib.contenttypes.models import ContentType

    name, model = related.content_type
    with own_statements(using):
        content_type = ContentType.objects.db_manager(using).get_for_model(
            model, for_concrete_model=False
        )
    return bool(row.get(name) == content_type.pk)


def read_through(target: WriteTarget, using: str, keys: list[Any]) -> list[Row]:
    """Return the references of rows of a through table, for `record_related`."""
    names = through_names(target)
    queryset: Any = QuerySet(target.model, using=using).filter(pk__in=keys)
    return [dict(zip(names, values, strict=True)) for values in queryset.values_list(*names)]
