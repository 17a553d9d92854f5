"""Model fields as filters see them."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone

from .expression import Filter
from .schema import FieldSpec, Kind

_KINDS: tuple[tuple[type[Any], Kind], ...] = (
    (models.BooleanField, Kind.BOOLEAN),
    (models.IntegerField, Kind.INTEGER),
    (models.FloatField, Kind.FLOAT),
    (models.DecimalField, Kind.DECIMAL),
    (models.DateTimeField, Kind.DATETIME),
    (models.DateField, Kind.DATE),
    (models.TimeField, Kind.TIME),
    (models.UUIDField, Kind.UUID),
    (models.CharField, Kind.TEXT),
    (models.TextField, Kind.TEXT),
    (models.FileField, Kind.TEXT),
    (models.FilePathField, Kind.TEXT),
    (models.GenericIPAddressField, Kind.TEXT),
)


def field_spec(field: models.Field[Any, Any]) -> FieldSpec:
    """How a field's values compare; ids and foreign keys as the key behind them does."""
    zone = timezone.get_default_timezone()
    if isinstance(field, models.ForeignKey):
        target = field.target_field
        while isinstance(target, models.ForeignKey):
            target = target.target_field
        return FieldSpec(field.name, Kind.KEY, _kind(target), zone)
    if field.primary_key:
        return FieldSpec(field.name, Kind.KEY, _kind(field), zone)
    return FieldSpec(field.name, _kind(field), zone=zone)


def to_q(filter: Filter) -> Q:
    """The same rows, asked of the database."""
    if not filter.possible:
        return Q(pk__in=[])
    lookups = {f"{name}__in": list(values) for name, values in filter.equalities.items()}
    return Q(**lookups)


def _kind(field: models.Field[Any, Any]) -> Kind:
    output = getattr(field, "output_field", None) if getattr(field, "generated", False) else None
    field = output or field
    return next((kind for cls, kind in _KINDS if isinstance(field, cls)), Kind.OPAQUE)
