"""Captures changes of many-to-many fields, by the rows of their through tables."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Q

from ..declarations.row_reader import Row
from ..utils.transactions import own_statements
from .recorder import record
from .tables import RelatedTable, Rows, distinct, identify, in_parts, key_in
from .targets import WriteTarget, reference_names


def record_related(target: WriteTarget, using: str, rows: Iterable[Row]) -> None:
    """Record the rows whose many-to-many field changed with rows of its through table."""
    rows = list(rows)
    for related in target.related:
        keys = distinct(row[related.source] for row in rows if _concerns(related, row, using))
        table, changed = related.table, (related.field,)
        for part in in_parts(keys):
            with own_statements(using):
                related_rows = table.read_where(using, Q(**{f"{related.target}__in": part}))
            record(table, using, [(row, row, "updated") for row in related_rows.values()], changed)


def record_changed_references(
    target: WriteTarget, using: str, befores: Rows, afters: Iterable[Row]
) -> None:
    """Record the rows to which updated rows of a through table referred, or refer now."""
    referred: list[Row] = []
    unmatched = dict(befores)
    for after in afters:
        before = unmatched.pop(identify(target.model, key_in(target.model, after)), None)
        if before is None:
            referred.append(after)
        elif any(before[name] != after[name] for name in reference_names(target)):
            referred += before, after
    record_related(target, using, [*unmatched.values(), *referred])


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
