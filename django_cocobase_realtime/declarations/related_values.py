"""The values of related fields, read for many documents at once.

All paths that lead to one row each are read by one query, and all that lead to many rows by
another one. The values are those of now, whatever the row of the document was before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.db import connections
from django.db.models import F, QuerySet
from msgspec.structs import replace

from ..events import Change
from ..utils.project_code import ProjectCodeFailed, is_unavailable
from ..utils.transactions import savepoint_at_first_query
from .collection import Collection
from .related_fields import RelatedField
from .serialization import document_id, raw_column

MAX_KEYS = 1000  # documents in one query

# values by the name of the related field
Values = dict[str, Any]


def make_related(
    collection: Collection, ids: Iterable[str], using: str | None = None
) -> dict[str, Values]:
    """Return the values of a collection's related fields now, by document id.

    A document that does not exist has null, and empty lists. Failures are logged, and give the
    same. Raises exceptions that mean that the database does not answer.
    """
    fields = list(collection.related_fields.values())
    if not fields:
        return {}
    key_of = collection.codec.key
    keys = {id: key_of(id) for id in ids}
    wanted = [key for key in keys.values() if key is not None]
    values = read_values(fields, wanted, using or collection.database)
    return {id: values[id] if id in values else empty_values(fields) for id in keys}


def with_related(
    collection: Collection, changes: Sequence[Change], using: str | None = None
) -> list[Change]:
    """Return changes with the values of related fields as they are now."""
    if not collection.related_fields:
        return list(changes)
    values = make_related(collection, (change.document_id for change in changes), using)
    return [
        replace(
            change, related=values[change.document_id], changed=shown_changes(collection, change)
        )
        for change in changes
    ]


def shown_changes(collection: Collection, change: Change) -> tuple[str, ...] | None:
    """Return the names of the changed fields, with the related fields that depend on them."""
    if change.changed is None:
        return None
    changed = set(change.changed)
    related = [
        name
        for name, field in collection.related_fields.items()
        if name not in changed and not changed.isdisjoint({*field.links, name.partition(".")[0]})
    ]
    return (*change.changed, *related)


def empty_values(fields: Iterable[RelatedField]) -> Values:
    """Return the values of a document that does not exist."""
    return {field.name: field.empty for field in fields}


def read_values(
    fields: Sequence[RelatedField], keys: Iterable[Any], using: str
) -> dict[str, Values]:
    """Return the values of related fields for documents with these primary keys, by document id.

    Values that cannot be read are null, which is logged. Raises exceptions that mean that the
    database does not answer.
    """
    # keys of the project's own fields may not be hashable
    by_id = {document_id(fields[0].model, key): key for key in keys}
    wanted, values = list(by_id.values()), {id: empty_values(fields) for id in by_id}
    to_one = [field for field in fields if not field.to_many]
    groups = [group for group in (to_one, [f for f in fields if f.to_many]) if group]
    for start in range(0, len(wanted), MAX_KEYS):
        _read_part(groups, wanted[start : start + MAX_KEYS], using, values)
    return values


def _read_part(
    groups: Sequence[Sequence[RelatedField]],
    keys: Sequence[Any],
    using: str,
    values: dict[str, Values],
) -> None:
    """Read the values of some documents; if that fails, find those for which it does."""
    try:
        with _savepoint(using):
            selected = [list(_select(group, keys, using)) for group in groups]
    except Exception as error:
        # SQLite raises the same exception for text that is not valid UTF-8
        if is_unavailable(error) and "decode" not in str(error):
            raise
        middle = len(keys) // 2
        if middle:
            _read_part(groups, keys[:middle], using, values)
            _read_part(groups, keys[middle:], using, values)
        elif len(groups) > 1:
            for group in groups:
                _read_part([group], keys, using, values)
        else:
            _log(groups[0], error)
        return
    for group, rows in zip(groups, selected, strict=True):
        store = _store_lists if group[0].to_many else _store_values
        store(group, rows, using, values)


def _savepoint(using: str) -> AbstractContextManager[None]:
    """Return a block whose failure does not end the transaction around it."""
    # the transaction goes on by itself on SQLite
    is_sqlite = connections[using].vendor == "sqlite"
    return nullcontext() if is_sqlite else savepoint_at_first_query(using)


def _select(fields: Sequence[RelatedField], keys: Sequence[Any], using: str) -> Any:
    columns = [raw_column(F(field.lookup), field.is_raw) for field in fields]
    many = fields[0].many
    # managers of the project may leave rows out
    rows: QuerySet[Any] = QuerySet(fields[0].model, using=using).order_by()
    rows = rows.filter(pk__in=keys)
    if many is not None:
        # the key without conversion, so that it can be compared
        related = raw_column(F(many), True)
        return rows.filter(**{f"{many}__isnull": False}).values_list("pk", related, *columns)
    return rows.values_list("pk", *columns)


def _store_values(
    fields: Sequence[RelatedField], rows: Iterable[Any], using: str, values: dict[str, Values]
) -> None:
    for key, *selected in rows:
        # none if the database compares keys in another way, and returns another one
        of_document = values.get(document_id(fields[0].model, key), {})
        for field, value in zip(fields, selected, strict=True):
            of_document[field.name] = _to_json(field, value, using)


def _store_lists(
    fields: Sequence[RelatedField], rows: Iterable[Any], using: str, values: dict[str, Values]
) -> None:
    lists: dict[str, dict[Any, Sequence[Any]]] = {}
    for key, related, *selected in rows:
        # a row can be related to a document several times
        lists.setdefault(document_id(fields[0].model, key), {})[related] = selected
    for id, by_key in lists.items():
        if id not in values:
            continue
        ordered = [by_key[key] for key in sorted(by_key)]
        for number, field in enumerate(fields):
            values[id][field.name] = [_to_json(field, row[number], using) for row in ordered]


def _to_json(field: RelatedField, value: Any, using: str) -> Any:
    try:
        return field.to_json(value, using)
    except Exception as error:  # of the storage of a file
        if is_unavailable(error):
            raise
        _log([field], error)
        return None


def _log(fields: Sequence[RelatedField], error: Exception) -> None:
    label, names = fields[0].model._meta.label, [field.name for field in fields]
    failure = ProjectCodeFailed(f"model {label}", f"related fields {names}")
    failure.__cause__ = error
    failure.log()
