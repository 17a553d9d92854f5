"""The two kinds of names in the option ``depends_on`` of a collection.

A label such as "teams.Membership" is that of a model that the permission reads. A path of relations
from the collection's model, such as "project.organization", says that the serializer shows the rows
to which it leads: when one of them changes, the document is made again. If it ends with a column,
such as "assignee.username", only changes of this column count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db import models

from ..filters.paths import path_parts
from ..utils.transactions import database_for
from .related_fields import Hop, InvalidRelatedField, RelatedField, hops_to_rows


class DependsOn(NamedTuple):
    """The option ``depends_on``, by the kind of its names."""

    # labels of models
    labels: tuple[str, ...]
    # paths of relations
    relations: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SerializedRelation:
    """A path of relations to rows that the serializer of a collection shows."""

    # the path, as in the option ``depends_on``
    name: str
    # the first relation of the path, which is the name in ``changed`` of events
    changed: str
    # the tables from the document to the rows, without the document's own. All columns of the rows
    # matter, or the one at the end of the path, and the links on the way
    hops: tuple[Hop, ...]
    # whether a document can show several rows
    to_many: bool

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Labels of the models whose tables must be followed."""
        return tuple(dict.fromkeys(hop.label for hop in self.hops))


def parse_depends_on(model: type[models.Model], names: Iterable[str]) -> DependsOn:
    """Return the names by their kind. A name that could be both is a label.

    A name is a path if it begins with a relation of the model. Every other name is a label, also if
    there is no such model.
    """
    labels: list[str] = []
    relations: list[str] = []
    for name in dict.fromkeys(names):
        is_path = not _is_label(name) and _is_relation(model, path_parts(name)[0])
        (relations if is_path else labels).append(name)
    return DependsOn(tuple(labels), tuple(relations))


def resolve_relation(model: type[models.Model], name: str) -> SerializedRelation:
    """Return the relation with this name in ``depends_on``.

    Raises `InvalidRelatedField` if a part of it is no relation that can be followed.
    """
    parts = path_parts(name)
    hops, to_many = hops_to_rows(model, parts)
    return SerializedRelation(name, parts[0], hops, to_many)


def serialized_relations(
    model: type[models.Model], names: Iterable[str], using: str
) -> dict[str, SerializedRelation]:
    """Return the relations among the names in ``depends_on``, by name.

    Those that a system check refuses are left out.
    """
    relations: dict[str, SerializedRelation] = {}
    for name in parse_depends_on(model, names).relations:
        try:
            relation = resolve_relation(model, name)
        except InvalidRelatedField:
            continue
        if all(database_for(hop.model) == using for hop in relation.hops):
            relations[name] = relation
    return relations


def depends_on_labels(
    model: type[models.Model],
    names: Iterable[str],
    relations: Mapping[str, SerializedRelation],
) -> Iterator[str]:
    """Yield the labels of the models that ``depends_on`` names, and of its relations' models."""
    yield from parse_depends_on(model, names).labels
    for relation in relations.values():
        yield from relation.labels


def followed_paths(
    fields: Mapping[str, RelatedField], relations: Mapping[str, SerializedRelation]
) -> Iterator[tuple[str, RelatedField | SerializedRelation]]:
    """Yield what documents show of related rows, with the names in ``changed`` of derived events.

    Several relations that the serializer shows can have the same name.
    """
    yield from fields.items()
    for relation in relations.values():
        yield relation.changed, relation


def _is_label(name: str) -> bool:
    try:
        apps.get_model(name)
    except (LookupError, ValueError):
        return False
    return True


def _is_relation(model: type[models.Model], name: str) -> bool:
    try:
        return bool(model._meta.get_field(name).is_relation)
    except FieldDoesNotExist:
        return False
