"""The documents that show rows of related tables which have changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import QuerySet

from ..declarations.collection import Collection
from ..declarations.dependency_table import DependencyTable, label_of
from ..declarations.depends_on import followed_paths
from ..declarations.registry import registry
from ..declarations.related_fields import Hop
from ..events import Change, Image

KEYS_PER_QUERY = 500  # values that one query for documents compares
# a value that the log does not contain
_UNKNOWN = object()


class TooManyDocuments(Exception):
    """More documents show the changed rows than allowed, or it is not known which ones do."""


@dataclass(slots=True)
class Concerned:
    """The documents of one collection that changes of related rows concern."""

    collection: Collection
    # names of related fields by lookup, then by the value that documents are looked up by
    names: dict[str, dict[Any, set[str]]] = field(default_factory=dict)
    # lookups by which a document may be found several times
    repeating: set[str] = field(default_factory=set)
    # whether a value by which documents are looked up is not known
    is_unknown: bool = False

    def __bool__(self) -> bool:
        return bool(self.names) or self.is_unknown

    def find(self, using: str, limit: int) -> dict[Any, set[str]]:
        """Return the names of the related fields that change, by primary key of the document.

        Raises `TooManyDocuments`.
        """
        if self.is_unknown:
            raise TooManyDocuments("The log does not contain all values of a related row.")
        documents: dict[Any, set[str]] = {}
        for lookup, values in self.names.items():
            for names, group in _by_names(values):
                for key in self._find(using, lookup, group, limit):
                    documents.setdefault(key, set()).update(names)
                    if len(documents) > limit:
                        raise TooManyDocuments(f"More than {limit} documents show the rows.")
        return documents

    def _find(self, using: str, lookup: str, values: Sequence[Any], limit: int) -> Iterator[Any]:
        # managers of the project may leave rows out
        rows: QuerySet[Any] = QuerySet(self.collection.concrete_model, using=using).order_by()
        for start in range(0, len(values), KEYS_PER_QUERY):
            part = values[start : start + KEYS_PER_QUERY]
            keys = rows.filter(**{f"{lookup}__in": part}).values_list("pk", flat=True)
            if lookup in self.repeating:
                keys = keys.distinct()
            yield from keys[: limit + 1]


def find_concerned(
    collections: Iterable[Collection], changes: Sequence[Change], using: str
) -> list[Concerned]:
    """Return which documents changes in a hidden stream concern, without a query."""
    by_label: dict[str, list[Change]] = {}
    for change in changes:
        by_label.setdefault(label_of(change.document_id)[0], []).append(change)
    tables = {label: registry.dependency(label) for label in by_label}
    return [
        concerned
        for collection in collections
        if (concerned := _concerned(collection, tables, by_label, using))
    ]


def _concerned(
    collection: Collection,
    tables: dict[str, DependencyTable | None],
    by_label: dict[str, list[Change]],
    using: str,
) -> Concerned:
    concerned = Concerned(collection)
    for name, shown in followed_paths(collection.related_fields, collection.serialized_relations):
        for hop in shown.hops:
            table = tables.get(hop.label)
            if table is None or _is_own_event(collection, hop):
                continue
            for change in by_label[hop.label]:
                if not _matters(hop, table, change):
                    continue
                for value in _values(hop, table, change, using):
                    if value is None:
                        continue
                    if value is _UNKNOWN:
                        concerned.is_unknown = True
                        continue
                    by_value = concerned.names.setdefault(hop.lookup, {})
                    by_value.setdefault(value, set()).add(name)
                    if shown.to_many:
                        concerned.repeating.add(hop.lookup)
    return concerned


def _is_own_event(collection: Collection, hop: Hop) -> bool:
    """Return whether changes of a table are events of the collection anyway.

    That is so for the rows that connect documents with those of their own many-to-many field.
    """
    if "__" in hop.lookup:  # of the documents of another relation
        return False
    for relation in collection.concrete_model._meta.many_to_many:
        through: Any = relation.remote_field.through
        if through._meta.concrete_model is hop.model and hop.key == relation.m2m_field_name():
            return True
    return False


def _matters(hop: Hop, table: DependencyTable, change: Change) -> bool:
    """Return whether a change of a row concerns what documents show."""
    if change.op != "updated" or change.changed is None:
        return True
    # an update of a column that images do not show is logged without the name of the column
    if not hop.columns <= table.codec.fields.keys():
        return True
    return not hop.columns.isdisjoint(change.changed)


def _values(hop: Hop, table: DependencyTable, change: Change, using: str) -> list[Any]:
    """Return the values by which documents are looked up: as they were, and as they are."""
    images = [change.before, change.after]
    if change.op == "deleted":
        del images[1]
    elif change.op == "created" or (change.before is None and hop.key in table.codec.key_names):
        del images[0]
    return [_value(hop, table, image, using) for image in images]


def _value(hop: Hop, table: DependencyTable, image: Image | None, using: str) -> Any:
    if image is None or hop.key not in image:
        return _UNKNOWN
    instance = table.codec.to_instance(table.model, {hop.key: image[hop.key]}, using)
    attname = str(table.codec.fields[hop.key].attname)
    return instance.__dict__.get(attname, _UNKNOWN)


def _by_names(values: dict[Any, set[str]]) -> Iterator[tuple[frozenset[str], list[Any]]]:
    """Yield the values that concern the same related fields, with the names of these."""
    groups: dict[frozenset[str], list[Any]] = {}
    for value, names in values.items():
        groups.setdefault(frozenset(names), []).append(value)
    yield from groups.items()
