"""Related fields: values of related rows in documents, such as ``assignee.name``.

A name in the option ``fields`` of a collection is a related field if it is a path from the model
through relations to a field, or the name of a relation that leads to other rows. A path through
foreign keys shows one value. A path with one relation to many rows shows a list, in the order of
these rows' keys. ``url`` after a file field shows the URL of the file.

Each table on the way is a `Hop`. The value of a document can change only if one of the columns
changes that its hops name, or one of the columns of the document's own row in `RelatedField.links`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db import models

from ..utils.project_code import calling
from ..utils.transactions import database_for
from .image_fields import is_secret_looking, row_tables
from .serialization import RowCodec, has_custom_conversion

# of this app, whose rows no document may show
APP_LABEL = "cocobase_realtime"
# last part of a name that shows the URL of a file
URL = "url"


class InvalidRelatedField(ValueError):
    """A name is not a path to a value; the message says which part is wrong."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A table between the documents and a value.

    The documents that a row of the table is related to are those whose value of ``lookup`` equals
    the row's value of ``key``, which can change.
    """

    # the model that has the table
    model: type[models.Model]
    # name of the field by which rows of this table are found from the side of the document
    key: str
    # lookup of the ORM, from the document's model, of the values that are compared with ``key``
    lookup: str
    # names of the fields of this table that matter: the key, and the next link or the value
    columns: frozenset[str]

    @property
    def label(self) -> str:
        """The label of the model, as in the option ``depends_on``."""
        return self.model._meta.label


@dataclass(frozen=True, eq=False)
class RelatedField:
    """A value of related rows, as part of the documents of a model."""

    # the name in the option ``fields``
    name: str
    # the model of the documents
    model: type[models.Model]
    # the tables from the document to the value, without the document's own
    hops: tuple[Hop, ...]
    # names of fields of the document's own row that decide which rows are related
    links: frozenset[str]
    # lookup of the value
    lookup: str
    # the field of the value
    field: models.Field[Any, Any]
    # lookup of the keys of the related rows; None if there is at most one
    many: str | None = None
    # whether the value is the URL of a file
    is_url: bool = False

    @property
    def to_many(self) -> bool:
        """Whether a document has a list of values."""
        return self.many is not None

    @property
    def empty(self) -> Any:
        """The value of a document without related rows, and of one that is gone."""
        return [] if self.to_many else None

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Labels of the models whose tables must be followed."""
        return tuple(dict.fromkeys(hop.label for hop in self.hops))

    @cached_property
    def is_raw(self) -> bool:
        """Whether the field's own conversion is applied after the query, see `to_json`."""
        return has_custom_conversion(self.field)

    @cached_property
    def _codec(self) -> RowCodec:
        return RowCodec(self.field.model, [self.field.name], [self.field.name])

    def to_json(self, value: Any, using: str) -> Any:
        """Return the JSON value for what a query returned; without conversion if `is_raw`.

        Raises `ProjectCodeFailed` if the storage of a file raises.
        """
        image = self._codec.partial_image({str(self.field.attname): value})
        decoded = self._codec.decode(image, using).get(self.field.name)
        if not self.is_url:
            return decoded
        if not decoded:
            return None
        storage: Any = self.field
        with calling(f"field {self.name!r}", "storage.url"):
            return str(storage.storage.url(decoded))


@dataclass(slots=True)
class _Table:
    """A hop that is being made."""

    model: type[models.Model]
    key: str
    lookup: str
    # whether the value of the key is in the rows that refer to this table
    is_target: bool
    columns: set[str] = field(default_factory=set)

    def hop(self) -> Hop:
        return Hop(self.model, self.key, self.lookup, frozenset({self.key, *self.columns}))


class _Path:
    """The way from the rows of a model to a value; one relation after the other is followed."""

    def __init__(self, model: type[models.Model]) -> None:
        # the model at the end of the path so far, and the relations to it
        self.model = model
        self.relations: list[str] = []
        self.tables: list[_Table] = []
        # names of fields of the document's own row
        self.links: set[str] = set()
        # relations up to the one that leads to many rows
        self.many: str | None = None

    def lookup(self, *names: str) -> str:
        return "__".join((*self.relations, *names))

    def use(self, column: Any) -> None:
        """Note that a field of the rows at the end of the path matters."""
        if not self.tables:
            self.links.add(column.name)
            return
        parents: list[str] = []
        if column.model is not self.tables[-1].model:
            for step in self.tables[-1].model._meta.get_path_to_parent(column.model):
                link: Any = step.join_field
                self.tables[-1].columns.add(link.name)
                self._enter(link.target_field, self.lookup(*parents, link.attname))
                parents.append(link.name)
        self.tables[-1].columns.add(column.name)

    def _enter(self, key: Any, lookup: str, *, is_target: bool = False) -> None:
        self.tables.append(_Table(key.model, key.name, lookup, is_target))

    def follow(self, relation: Any) -> None:
        """Continue the path by a relation."""
        if relation.many_to_many:
            self._follow_many_to_many(relation)
        elif relation.concrete:
            self.use(relation)
            target = _single(relation, relation.target_field)
            self._enter(target, self.lookup(relation.attname), is_target=True)
        else:
            reference = relation.field
            target = _single(reference, reference.target_field)
            self.use(target)
            self._enter(reference, self.lookup(target.attname))
        self.relations.append(relation.name)
        self.model = relation.related_model._meta.concrete_model
        if relation.one_to_many or relation.many_to_many:
            if self.many is not None:
                raise InvalidRelatedField(
                    f"{relation.name!r} is the second relation to many rows in it."
                )
            if len(self.model._meta.pk_fields) > 1:
                label = self.model._meta.label
                raise InvalidRelatedField(f"The primary key of {label} has several fields.")
            self.many = self.lookup(self.model._meta.pk.name)
        self._enter_child()

    def _follow_many_to_many(self, relation: Any) -> None:
        is_reverse = relation.auto_created
        field: Any = relation.field if is_reverse else relation
        through = field.remote_field.through
        names = [field.m2m_field_name(), field.m2m_reverse_field_name()]
        source, target = map(through._meta.get_field, reversed(names) if is_reverse else names)
        for reference in (source, target):
            _single(reference, reference)
        self.use(source.target_field)
        self._enter(source, self.lookup(source.target_field.attname))
        self.use(target)
        key = target.target_field
        self._enter(key, self.lookup(relation.name, key.attname), is_target=True)

    def _enter_child(self) -> None:
        """Continue in the table of a multi-table child, if a reference leads to its parent's."""
        table = self.tables[-1]
        if table.model is self.model or not issubclass(self.model, table.model):
            return
        links: Any = self.model._meta.get_path_to_parent(table.model)
        table.columns.add(links[-1].join_field.target_field.name)
        self._enter(links[0].join_field, self.lookup(links[0].join_field.attname))

    def finish(self, value: Any) -> None:
        """End the path with a field of the last rows."""
        last = self.tables[-1] if self.tables else None
        if (
            last is not None
            and last.is_target
            and (last.model, last.key)
            == (
                value.model,
                value.name,
            )
        ):
            self.tables.pop()  # the rows that refer to the last ones have the value themselves
        else:
            self.use(value)

    def finish_row(self) -> None:
        """End the path with all fields of the last rows, also of their multi-table parents."""
        last = self.tables[-1]
        last.columns.update(field.name for field in last.model._meta.local_concrete_fields)
        for parent in row_tables(self.model)[1:]:
            links: list[Any] = [i.join_field for i in self.model._meta.get_path_to_parent(parent)]
            names = (*(link.name for link in links[:-1]), links[-1].attname)
            self._enter(links[-1].target_field, self.lookup(*names))
            self.tables[-1].columns.update(f.name for f in parent._meta.local_concrete_fields)


def hops_to_rows(model: type[models.Model], parts: Sequence[str]) -> tuple[tuple[Hop, ...], bool]:
    """Return the hops to the rows at the end of a path of relations, all columns of which matter.

    If the path ends with a column, only this one matters. Also returns whether there can be many
    rows. Raises `InvalidRelatedField`.
    """
    apps.check_models_ready()  # before, relations from other models are not known
    path, to_many = _Path(model), False
    for number, part in enumerate(parts):
        field = _get(path.model, part)
        if number and number == len(parts) - 1 and not field.is_relation:
            path.finish(field)
            break
        _check_relation(path.model, field)
        path.follow(field)
        to_many, path.many = to_many or path.many is not None, None
    else:
        path.finish_row()
    return tuple(table.hop() for table in path.tables), to_many


def resolve(model: type[models.Model], name: str) -> RelatedField | None:
    """Return the related field with a name; None if it is the name of a column, or of nothing.

    Raises `InvalidRelatedField`.
    """
    parts = name.split(".")
    first = _find(model, parts[0])
    if first is None or (len(parts) == 1 and first.concrete and not first.many_to_many):
        return None
    apps.check_models_ready()  # before, relations from other models are not known
    path, is_url = _Path(model), False
    label = model._meta.label
    while parts:
        field = _get(path.model, parts[0])
        is_column = field.concrete and not field.many_to_many
        if is_column and (len(parts) == 1 or not field.is_relation):
            is_url = parts[1:] == [URL] and isinstance(field, models.FileField)
            if len(parts) > 1 and not is_url:
                raise InvalidRelatedField(f"{parts[0]!r} of {label} is no relation.")
            break
        _check_relation(path.model, field)
        path.follow(field)
        parts, label = parts[1:], path.model._meta.label
    else:
        field = path.model._meta.pk
    if isinstance(field, models.CompositePrimaryKey):
        raise InvalidRelatedField(f"The primary key of {label} has several fields.")
    path.finish(field)
    hops = tuple(table.hop() for table in path.tables)
    lookup = path.lookup(field.name)
    links = frozenset(path.links)
    return RelatedField(name, model, hops, links, lookup, field, many=path.many, is_url=is_url)


def _find(model: type[models.Model], name: str) -> Any:
    try:
        return model._meta.pk if name == "pk" else model._meta.get_field(name)
    except FieldDoesNotExist:
        return None


def _get(model: type[models.Model], name: str) -> Any:
    field = _find(model, name)
    if field is None:
        choices = sorted(field.name for field in model._meta.get_fields())
        raise InvalidRelatedField(
            f"{name!r} is no field of {model._meta.label}, which has {choices}."
        )
    return field


def _check_relation(model: type[models.Model], field: Any) -> None:
    """Raise `InvalidRelatedField` if a field is a relation that is not supported, or is none."""
    label = f"{field.name!r} of {model._meta.label}"
    if not field.is_relation:
        raise InvalidRelatedField(f"{label} is no relation.")
    if field.related_model is None or field in model._meta.private_fields:
        raise InvalidRelatedField(f"{label} is a generic relation.")
    if field.many_to_many:
        own = field.field if field.auto_created else field
        if not isinstance(own, models.ManyToManyField):
            raise InvalidRelatedField(f"{label} is not a field of Django.")


def _single(reference: Any, target: Any) -> Any:
    """Return ``target``. Raises `InvalidRelatedField` if a reference has several columns."""
    if not isinstance(reference, models.ForeignKey) or len(reference.foreign_related_fields) != 1:
        raise InvalidRelatedField(f"{reference.name!r} is not a foreign key.")
    return target


def is_secret(name: str) -> bool:
    """Return whether a part of a related field's name suggests that the value is secret."""
    return any(map(is_secret_looking, name.split(".")))


def related_fields(
    model: type[models.Model], names: Iterable[str], not_secret: Iterable[str]
) -> dict[str, RelatedField]:
    """Return the related fields among the names of a collection's readable fields, by name.

    Those that a system check refuses are left out: their values could not be kept true, or must
    not leave the server. ``not_secret`` are names that look secret but are not.
    """
    fields: dict[str, RelatedField] = {}
    for name in names:
        try:
            field = resolve(model, name)
        except InvalidRelatedField:
            continue
        if field is not None and (name in not_secret or not is_secret(name)) and _is_allowed(field):
            fields[name] = field
    several = len({field.many for field in fields.values() if field.many is not None}) > 1
    return {name: field for name, field in fields.items() if not (several and field.to_many)}


def _is_allowed(field: RelatedField) -> bool:
    """Return whether changes of the tables on the way can be followed."""
    return all(
        hop.model._meta.managed
        and hop.model._meta.app_label != APP_LABEL
        and database_for(hop.model) == database_for(field.model)
        for hop in field.hops
    )


def related_labels(fields: Mapping[str, RelatedField]) -> Iterator[str]:
    """Yield the labels of the models whose tables related fields show."""
    return (label for field in fields.values() for label in field.labels)
