"""The second face of a filter: the same rows, asked of the database.

Each condition is SQL that agrees with the predicate value by value, on SQLite and on PostgreSQL:
null answers no, texts are compared by code point, case is folded alike (see ``sql``).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Context, Decimal
from functools import reduce
from operator import and_, or_
from typing import Any

from django.conf import settings
from django.db import connections, models
from django.db.models import BooleanField, Case, F, Q, TextField, Value, When
from django.db.models.expressions import OrderBy
from django.db.models.functions import Collate
from django.db.models.lookups import GreaterThan, GreaterThanOrEqual, LessThan, LessThanOrEqual
from django.utils import timezone

from .nodes import And, Condition, Filter, Node, Not, Op, Or
from .schema import FIRST, LAST, FieldSpec, Kind
from .sql import Host, JsonCondition, TextCondition

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
    (models.GenericIPAddressField, Kind.ADDRESS),
    (models.JSONField, Kind.JSON),
)
_LOOKUPS = {Op.GT: "gt", Op.GTE: "gte", Op.LT: "lt", Op.LTE: "lte"}
_TEXT_LOOKUPS: dict[Op, Any] = {
    Op.GT: GreaterThan,
    Op.GTE: GreaterThanOrEqual,
    Op.LT: LessThan,
    Op.LTE: LessThanOrEqual,
}
_DECIDED = {FIRST: (Op.LT, Op.GTE), LAST: (Op.GT, Op.LTE)}
_INT64 = range(-(2**63), 2**63)
_NO_ROW = Q(pk__in=[])
_EXACT = Context(prec=1000)


def field_spec(field: models.Field[Any, Any]) -> FieldSpec:
    """How a field's values compare; ids and foreign keys as the key behind them does."""
    zone = timezone.get_default_timezone()
    if isinstance(field, models.ForeignKey):
        target = field.target_field
        while isinstance(target, models.ForeignKey):
            target = target.target_field
        return FieldSpec(field.name, Kind.KEY, _kind(target), zone, field.primary_key)
    if field.primary_key:
        return FieldSpec(field.name, Kind.KEY, _kind(field), zone, True)
    return FieldSpec(field.name, _kind(field), zone=zone)


def _kind(field: models.Field[Any, Any]) -> Kind:
    field = _column(field)
    return next((kind for cls, kind in _KINDS if isinstance(field, cls)), Kind.OPAQUE)


def _column(field: Any) -> Any:
    """The field whose values stand in the column: a generated field's output."""
    return field.output_field if getattr(field, "generated", False) else field


def to_q(filter: Filter, model: type[models.Model], using: str) -> Q:
    """The filter as a condition on ``model``'s rows in database ``using``.

    Exact on SQLite and PostgreSQL; other databases raise ``NotSupportedError`` for text and JSON.
    """
    return _q(filter.root, model, using)


def ordering(model: type[models.Model], order: str, using: str) -> OrderBy:
    """``order`` (a field's name, with ``-`` downwards) the same way on every database.

    Nulls are lowest, texts go by code point. For the names of fields that filters can compare.
    """
    descending, name = order.startswith("-"), order.removeprefix("-")
    field: Any = model._meta.get_field(name)
    by: Any = F(field.attname)
    if _kind(field) is Kind.TEXT:
        by = Collate(by, "C" if connections[using].vendor == "postgresql" else "BINARY")
    found: OrderBy = by.desc(nulls_last=True) if descending else by.asc(nulls_first=True)
    return found


def _q(node: Node, model: type[models.Model], using: str) -> Q:
    match node:
        case And(parts):
            return reduce(and_, (_q(part, model, using) for part in parts), Q())
        case Or(()):
            return _NO_ROW
        case Or(parts):
            return reduce(or_, (_q(part, model, using) for part in parts))
        case Not(part):
            # not SQL's NOT, which leaves an unknown unknown
            found = When(_q(part, model, using), then=Value(False))
            return Q(Case(found, default=Value(True), output_field=BooleanField()))
    return _Condition(node, model, using).q()


class _Condition:
    """One condition, for one column."""

    def __init__(self, condition: Condition, model: type[models.Model], using: str) -> None:
        self.condition = condition
        self.using = using
        field: Any = model._meta.get_field(condition.ref[0])
        self.field = field
        self.name: str = field.attname
        self.postgresql = connections[using].vendor == "postgresql"

    def q(self) -> Q:
        condition = self.condition
        if condition.kind is Kind.JSON:
            return Q(JsonCondition(F(self.name), condition))
        match condition.op:
            case Op.IS_NULL:
                return Q(**{f"{self.name}__isnull": condition.operand})
            case Op.IN:
                return self._equal() or _NO_ROW
            case Op.NOT_IN:
                present, equal = self._present(nan=False), self._equal()
                return present & ~equal if equal else present
            case Op.CONTAINS | Op.STARTS_WITH | Op.ENDS_WITH:
                return Q(TextCondition(self._text(), condition))
        return self._ordered()

    def _equal(self) -> Q | None:
        """Rows that hold one of the values; None where none can."""
        values = self._storable(self.condition.operand)
        found = self._among(values) if values else None
        if self.condition.kind is Kind.DATETIME:
            for end in (FIRST, LAST):
                stored = self._stored(end) if end in self.condition.operand else None
                if stored is not None:
                    lookup = "lte" if end is FIRST else "gte"
                    beyond = Q(**{f"{self.name}__{lookup}": stored})
                    found = beyond if found is None else found | beyond
        return found

    def _present(self, *, nan: bool = True) -> Q:
        present = Q(**{f"{self.name}__isnull": False})
        if not nan and self.postgresql and isinstance(_column(self.field), models.FloatField):
            # PostgreSQL's NaN equals itself and exceeds all; for a filter it is no value
            present &= ~Q(**{self.name: float("nan")})
        return present

    def _text(self) -> Any:
        """The column as the text that images have."""
        inet = self.condition.kind is Kind.ADDRESS and self.postgresql
        return Host(F(self.name)) if inet else F(self.name)

    def _among(self, values: list[Any]) -> Q:
        if self.condition.kind is Kind.ADDRESS and self.postgresql:
            return reduce(or_, (Q(TextCondition.equal(self._text(), each)) for each in values))
        if self.condition.kind is Kind.TEXT and getattr(self._target(), "db_collation", None):
            return reduce(or_, (Q(TextCondition.equal(self._text(), each)) for each in values))
        return Q(**{f"{self.name}__in": values})

    def _target(self) -> Any:
        field = _column(self.field)
        while isinstance(field, models.ForeignKey):
            field = field.target_field
        return field

    def _storable(self, values: Iterable[Any]) -> list[Any]:
        """Those that a row can hold, as the ORM takes them: no other equals any row."""
        match self.condition.kind:
            case Kind.INTEGER:
                return [value for value in values if value in _INT64]
            case Kind.DECIMAL:
                return [value for value in values if _floor(self._target(), value) == value]
            case Kind.DATETIME:
                ordinary = (v for v in values if v not in (FIRST, LAST))
                return [stored for v in ordinary if (stored := self._stored(v)) is not None]
        return list(values)

    def _stored(self, moment: datetime) -> datetime | None:
        """As the ORM takes it; None where the column's zone has no such moment."""
        zone: Any = timezone.get_default_timezone()
        if settings.USE_TZ:
            zone = connections[self.using].timezone or UTC
        try:
            local = moment.astimezone(zone)
        except OverflowError:
            return None
        return local if settings.USE_TZ else local.replace(tzinfo=None)

    def _ordered(self) -> Q:
        op, bound, kind = self.condition.op, self.condition.operand, self.condition.kind
        upwards = op in (Op.GT, Op.GTE)
        if kind in (Kind.TEXT, Kind.ADDRESS):
            collation = "C" if self.postgresql else "BINARY"
            text = Collate(self._text(), collation)
            return Q(_TEXT_LOOKUPS[op](text, Value(bound, output_field=TextField())))
        if kind is Kind.DECIMAL:
            found = _floor(self._target(), bound)
            if found is None:  # beyond what the column holds
                return _NO_ROW if upwards is (bound > 0) else self._present()
            if found != bound:  # between two values of the column
                op, bound = (Op.GT if upwards else Op.LTE), found
        elif kind is Kind.INTEGER and bound not in _INT64:
            return _NO_ROW if upwards is (bound > 0) else self._present()
        elif kind is Kind.DATETIME:
            stored, late = self._stored(bound), bound.year > 5000
            if stored is None or op in _DECIDED.get(bound, ()):  # nothing is beyond the ends
                return _NO_ROW if upwards is late else self._present()
            bound = stored
        present = self._present(nan=not upwards)
        return present & Q(**{f"{self.name}__{_LOOKUPS[op]}": bound})


def _floor(field: Any, value: Decimal) -> Decimal | None:
    """The greatest value that the column can hold and is not above; None for none so large."""
    places, digits = field.decimal_places or 0, field.max_digits
    found = value.quantize(Decimal(1).scaleb(-places), ROUND_FLOOR, _EXACT)
    if digits is not None and abs(found) >= Decimal(10) ** (digits - places):
        return None
    return found
