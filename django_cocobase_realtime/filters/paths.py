"""Paths through related models in filters, such as ``project.organization.name``.

A path matches a row if some related row matches it. It is resolved as a queryset over its first
hop: ``{"project.organization.name": "a"}`` means the rows whose ``project`` is in
``Project.objects.filter(organization__name="a")``. If the first hop leads to several rows, the
queryset is over the model itself, and its primary key is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models import Q

from ..utils.transactions import database_for
from .filter import Filter
from .nodes import Condition
from .operators import IN, IS_NULL, OPERATORS
from .orm import field_spec, to_q
from .schema import INT64, FieldSpec, InvalidFilter, Kind, Ref

_SEPARATOR = re.compile(r"\.|__")
# kinds of which Django's own lookups have the same meaning as ours
_PLAIN_KINDS = frozenset({Kind.INTEGER, Kind.UUID, Kind.BOOLEAN, Kind.TEXT})


@dataclass(frozen=True, slots=True)
class RelatedPath:
    """A path to a value in related rows."""

    # name of the field whose values are compared with the keys of related rows: the first part of
    # the path, or the primary key
    field: str
    # whether `field` is the first part, so that a row without a value has no related row
    by_first_part: bool
    # whether a row has at most one related row
    to_one: bool
    # the model of the keys
    model: type[models.Model]
    # the relations from `model` to `last`
    relations: tuple[str, ...]
    # the model with the value at the end of the path
    last: type[models.Model]
    # the value in rows of `last`
    ref: Ref
    # the properties of the value's field
    spec: FieldSpec

    def matching(self, filter: Filter) -> models.QuerySet[Any]:
        """Return the rows of which some related row matches a filter on `ref`."""
        using = database_for(self.model)
        if not self.relations:
            return self._rows(self.model).filter(to_q(filter, self.last, using))
        relation = "__".join(self.relations)
        values = self._plain_values(filter)
        if values is not None:
            lookup = f"{relation}__{self.ref[0]}"
            return self._rows(self.model).filter(**{f"{lookup}__in": values})
        related = self._rows(self.last).filter(to_q(filter, self.last, using))
        condition = Q(**{f"{relation}__in": related})
        root = filter.root
        if isinstance(root, Condition) and root.operator is IS_NULL and root.operand:
            condition |= Q(**{f"{relation}__isnull": True})
        return self._rows(self.model).filter(condition)

    def matching_keys(self, queryset: Any, *, negated: bool) -> models.QuerySet[Any]:
        """Return the rows of which some related row has a value that a queryset returns.

        With ``negated``, these are the rows of which some related row has another value.
        """
        name = self.ref[0]
        related = self._rows(self.last)
        if negated:
            related = related.filter(**{f"{name}__isnull": False})
            related = related.exclude(**{f"{name}__in": queryset})
        elif self.relations:
            lookup = "__".join((*self.relations, name))
            return self._rows(self.model).filter(**{f"{lookup}__in": queryset})
        else:
            related = related.filter(**{f"{name}__in": queryset})
        if not self.relations:
            return related
        return self._rows(self.model).filter(**{f"{'__'.join(self.relations)}__in": related})

    def _rows(self, model: type[models.Model]) -> models.QuerySet[Any]:
        """Return all rows of a model, as joins do, which ignore the model's default manager."""
        return model._base_manager.using(database_for(self.model)).all()

    def _plain_values(self, filter: Filter) -> list[Any] | None:
        """Return the values of a filter that Django's own ``in`` expresses; None for others.

        Such a query is shorter, and each of its conditions is one on a column.
        """
        root = filter.root
        if not isinstance(root, Condition) or root.operator is not IN:
            return None
        field: Any = self.last._meta.get_field(root.ref[0])
        while isinstance(field, models.ForeignKey):
            field = field.target_field
        if root.kind not in _PLAIN_KINDS or not type(field).__module__.startswith("django."):
            return None
        if getattr(field, "db_collation", None) is not None:
            return None
        if root.kind is Kind.INTEGER and any(value not in INT64 for value in root.operand):
            return None
        return list(root.operand)


def path_parts(name: str) -> list[str]:
    """Return the parts of a path, which ``.`` and ``__`` separate."""
    return _SEPARATOR.split(name)


class ModelPaths:
    """The paths that begin at a model. Both ``.`` and ``__`` separate their parts."""

    def __init__(self, model: type[models.Model]) -> None:
        self._model = model

    def find(self, name: str) -> RelatedPath | None:
        """Return a path, or None if the name is not one."""
        try:
            return self.resolve(name)
        except InvalidFilter:
            return None

    def resolve(self, name: str) -> RelatedPath | None:
        """Return a path, or None if the name does not begin with a relation.

        Raises `InvalidFilter`, with the part that is wrong.
        """
        parts = path_parts(name)
        first_field = self._field(self._model, parts[0])
        if first_field is None or not first_field.is_relation:
            return None
        fields = list(self._relations(parts))
        if not fields:
            return None
        last = fields[-1].related_model
        rest = parts[len(fields) :] or [last._meta.pk.name]
        field = self._get_field(last, rest[0])
        first = fields[0]
        by_first_part = first.concrete and not first.many_to_many
        relations = [field.name for field in fields]
        if by_first_part:
            key, model = first.name, first.related_model
            del relations[0]
        else:
            model, meta = self._model, self._model._meta
            key = meta.pk.name
            if len(meta.pk_fields) > 1:
                message = f"{parts[0]!r}: a path cannot begin with several rows"
                raise InvalidFilter(f"{message}, since the primary key has several fields.")
        spec, ref = field_spec(field), (field.name,)
        if len(rest) > 1:
            spec, ref = FieldSpec(field.name, Kind.JSON), (field.name, *rest[1:])
        to_one = all(field.many_to_one or field.one_to_one for field in fields)
        return RelatedPath(
            field=key,
            by_first_part=by_first_part,
            to_one=to_one and by_first_part,
            model=model,
            relations=tuple(relations),
            last=last,
            ref=ref,
            spec=spec,
        )

    def _relations(self, parts: list[str]) -> Iterator[Any]:
        """Yield the fields of a path that lead to related rows."""
        model = self._model
        for number, part in enumerate(parts):
            field = self._get_field(model, part)
            is_last = number == len(parts) - 1
            is_column = field.concrete and not field.many_to_many
            if is_column and (is_last or (number and isinstance(field, models.JSONField))):
                return
            if field.related_model is None:
                raise InvalidFilter(f"{part!r} of {model._meta.label} is no relation.")
            yield field
            model = field.related_model

    def _get_field(self, model: type[models.Model], name: str) -> Any:
        field = self._field(model, name)
        if field is None:
            choices = sorted(field.name for field in model._meta.get_fields())
            raise InvalidFilter(
                f"{name!r} is neither a field of {model._meta.label}, which has {choices}, nor one "
                f"of the operators {list(OPERATORS)}."
            )
        return field

    def _field(self, model: type[models.Model], name: str) -> Any:
        try:
            return model._meta.pk if name == "pk" else model._meta.get_field(name)
        except FieldDoesNotExist:
            return None
