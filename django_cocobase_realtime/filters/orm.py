"""Conversion of filters to conditions of Django's ORM, which the database evaluates.

On SQLite and PostgreSQL, the results are the same as those of the predicate for every value: null
matches nothing, texts are compared by code points, and case is folded in the same way (see
``sql``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Context, Decimal
from functools import reduce
from operator import and_, or_
from typing import Any

from django.conf import settings
from django.db import connections, models
from django.db.models import BooleanField, Case, F, Q, TextField, Value, When
from django.db.models.functions import Collate
from django.utils import timezone

from .filter import Filter
from .key_set import KeySet
from .nodes import And, Condition, InKeySet, Node, Not, Or, Values
from .operators import (
    CONTAINS,
    ENDS_WITH,
    GT,
    GTE,
    IN,
    IS_NULL,
    LT,
    LTE,
    NOT_IN,
    STARTS_WITH,
    Bound,
    Operator,
)
from .schema import EARLIEST, INT64, LATEST, FieldSpec, Kind, value_of
from .sql import (
    Host,
    IsInList,
    JsonbCondition,
    JsonMatches,
    TextIsIn,
    TextMatches,
    TextSearch,
    code_point_collation,
    contains,
    ends_with,
    jsonb_compares,
    jsonb_contains,
    jsonb_is_in,
    jsonb_is_not_in,
    jsonb_is_null,
    jsonb_matches,
    starts_with,
)

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
# Django's field of each kind
PLAIN_FIELDS = {kind: field for field, kind in reversed(_KINDS)}
# kinds of which many values are one parameter in SQLite, which limits the number of parameters
_IN_ONE_PARAMETER = frozenset({Kind.INTEGER, Kind.TEXT, Kind.UUID, Kind.ADDRESS})
MAX_CHAIN = 200  # conditions that are joined without brackets
# a condition that no row matches
_NO_ROW = Q(pk__in=[])
# calculates without rounding: with more digits than a coerced decimal can have
_EXACT = Context(prec=1000)


def field_spec(field: models.Field[Any, Any]) -> FieldSpec:
    """Return the `FieldSpec` of a model field, by which filters know its kind.

    Primary keys and foreign keys have `Kind.KEY`, and the kind of the keys' values in ``key``.
    """
    zone = timezone.get_default_timezone()
    if isinstance(field, models.ForeignKey):
        target = field.target_field
        while isinstance(target, models.ForeignKey):
            target = target.target_field
        length = _max_length(target)
        return FieldSpec(field.name, Kind.KEY, _kind(target), zone, field.primary_key, length)
    if field.primary_key:
        return FieldSpec(field.name, Kind.KEY, _kind(field), zone, True, _max_length(field))
    return FieldSpec(field.name, _kind(field), zone=zone, max_length=_max_length(field))


def _kind(field: models.Field[Any, Any]) -> Kind:
    field = value_field(field)
    return next((kind for cls, kind in _KINDS if isinstance(field, cls)), Kind.OPAQUE)


def _max_length(field: Any) -> int | None:
    """Return the maximal number of characters of a text; None if the database has no limit."""
    length: int | None = getattr(value_field(field), "max_length", None)
    return None if isinstance(field, models.TextField) else length


def value_field(field: Any) -> Any:
    """Return the field that describes the column's values: for a generated field, the output."""
    return field.output_field if getattr(field, "generated", False) else field


def to_q(filter: Filter, model: type[models.Model], using: str) -> Q:
    """Return the filter as a condition on the rows of ``model`` in the database ``using``.

    Databases other than SQLite and PostgreSQL raise ``NotSupportedError`` when a query with a
    condition on text or JSON runs.
    """
    return _node_q(filter.root, model, using)


def _node_q(node: Node, model: type[models.Model], using: str) -> Q:
    match node:
        case And(parts):
            return _chain(and_, [_node_q(part, model, using) for part in parts])
        case Or(()):
            return _NO_ROW
        case Or(parts):
            return _chain(or_, [_node_q(part, model, using) for part in parts])
        case Not(part):
            # not SQL's NOT, with which a row does not match if the part is unknown because of NULL
            return _case(_node_q(part, model, using), matches=False)
    column = _Column(model, node.ref[0], node.kind, using)
    if isinstance(node, InKeySet):
        return column.is_in_keys(node.key_set)
    operator_sql = SQL[node.operator]
    if node.kind is Kind.JSON:
        return Q(JsonMatches(F(column.name), node, operator_sql.jsonb))
    return operator_sql.column(column, node)


def _chain(join: Callable[[Q, Q], Q], parts: list[Q]) -> Q:
    """Return the parts, joined by AND or OR.

    SQLite refuses expressions of more than 1,000 levels, and a chain has as many as parts.
    """
    while len(parts) > MAX_CHAIN:
        chains = [parts[n : n + MAX_CHAIN] for n in range(0, len(parts), MAX_CHAIN)]
        # in CASE, because Django would join the chains to one again
        parts = [_case(reduce(join, chain), matches=True) for chain in chains]
    return reduce(join, parts, Q())


def _case(condition: Q, *, matches: bool) -> Q:
    """Return a condition that is ``matches`` if the given one is true, and its opposite if not."""
    when = When(condition, then=Value(matches))
    return Q(Case(when, default=Value(not matches), output_field=BooleanField()))


class _Column:
    """A column of a model in one database. Its methods return conditions on the column."""

    def __init__(self, model: type[models.Model], name: str, kind: Kind, using: str) -> None:
        field: Any = model._meta.get_field(name)
        self.name: str = field.attname
        # the field that describes the values; a foreign key is not replaced by its target
        self.field: Any = value_field(field)
        self.kind = kind
        # alias of the database
        self.using = using
        # whether the database is PostgreSQL
        self.postgresql = connections[using].vendor == "postgresql"

    # conditions, see `SQL`

    def is_null(self, condition: Condition) -> Q:
        """Return a condition for null if the operand is True, and for all else if it is False."""
        return self._lookup("isnull", condition.operand)

    def is_in(self, condition: Condition) -> Q:
        """Return a condition for the operand's values."""
        return self._equals_any(condition.operand) or _NO_ROW

    def is_not_in(self, condition: Condition) -> Q:
        """Return a condition for all values except null and those of the operand."""
        present, equal = self._has_value(exclude_nan=True), self._equals_any(condition.operand)
        return present & ~equal if equal else present

    def is_in_keys(self, key_set: KeySet) -> Q:
        """Return a condition for the present keys of a set."""
        values = tuple(value_of(self.kind, key) for key in tuple(key_set.keys))
        if not self.postgresql and self.kind in _IN_ONE_PARAMETER:
            field, connection = self._target_field(), connections[self.using]
            prepared = [field.get_db_prep_value(v, connection) for v in self._storable(values)]
            if all(isinstance(v, int) or (isinstance(v, str) and "\0" not in v) for v in prepared):
                return Q(IsInList(F(self.name), prepared)) if prepared else _NO_ROW
        return self._equals_any(values) or _NO_ROW

    def compares(self, condition: Condition) -> Q:
        """Return a condition for values above or below the operand, as the operator requires."""
        bound, operand = condition.operator.bound, condition.operand
        lookup = condition.operator.name  # Django's lookups have the same names
        assert bound is not None
        match self.kind:
            case Kind.TEXT | Kind.ADDRESS:
                text = Collate(self.as_text(), code_point_collation(self.using))
                compare: Any = TextField().get_lookup(lookup)
                return Q(compare(text, Value(operand, output_field=TextField())))
            case Kind.DECIMAL:
                floor = _floor(self._target_field(), operand)
                if floor is None:
                    return self._compares_beyond(bound, above=operand > 0)
                if floor != operand:  # the operand is between two values of the column
                    lookup, operand = ("lte" if bound.upper else "gt"), floor
            case Kind.INTEGER if operand not in INT64:
                return self._compares_beyond(bound, above=operand > 0)
            case Kind.DATETIME:
                stored = to_stored(operand, self.using)
                if stored is None or _is_decided(bound, operand):
                    return self._compares_beyond(bound, above=operand.year > 5000)
                operand = stored
        # PostgreSQL sorts NaN above all numbers
        if not self._accepts(operand):
            # not converted by the project's field, which does not know the value
            operand = Value(operand, output_field=PLAIN_FIELDS[self.kind]())
        return self._has_value(exclude_nan=not bound.upper) & self._lookup(lookup, operand)

    def _compares_beyond(self, bound: Bound, *, above: bool) -> Q:
        """Return a condition that matches all values or none.

        Used if the operand is above (or below) all values that the column can store.
        """
        return self._has_value() if bound.upper is above else _NO_ROW

    def _equals_any(self, values: Values) -> Q | None:
        """Return a condition for these values, or None if the column can store none of them."""
        storable = self._storable(values)
        condition = self._equals_stored(storable) if storable else None
        if self.kind is Kind.DATETIME:
            # EARLIEST and LATEST also stand for local times beyond them
            for limit, lookup in ((EARLIEST, "lte"), (LATEST, "gte")):
                stored = to_stored(limit, self.using) if limit in values else None
                if stored is not None:
                    beyond = self._lookup(lookup, stored)
                    condition = beyond if condition is None else condition | beyond
        return condition

    def _equals_stored(self, values: list[Any]) -> Q:
        """Return a condition for these values, all of which the column can store."""
        inet = self.kind is Kind.ADDRESS and self.postgresql
        collated = self.kind is Kind.TEXT and getattr(self._target_field(), "db_collation", None)
        if inet or collated:
            return Q(TextIsIn(self.as_text(), values))
        return self._lookup("in", values)

    def _has_value(self, *, exclude_nan: bool = False) -> Q:
        """Return a condition for all values except null, and except NaN if ``exclude_nan``."""
        present = self._lookup("isnull", False)
        if exclude_nan and self.postgresql and isinstance(self.field, models.FloatField):
            # for filters NaN is no value, but in PostgreSQL it equals itself
            present &= ~Q(**{self.name: float("nan")})
        return present

    def _lookup(self, lookup: str, value: Any) -> Q:
        return Q(**{f"{self.name}__{lookup}": value})

    def as_text(self) -> Any:
        """Return the column as text, in the form that images of rows have."""
        inet = self.kind is Kind.ADDRESS and self.postgresql
        return Host(F(self.name)) if inet else F(self.name)

    def _target_field(self) -> Any:
        """Return the field that describes the values; for a foreign key, that of its target."""
        field = self.field
        while isinstance(field, models.ForeignKey):
            field = field.target_field
        return field

    def _storable(self, values: Iterable[Any]) -> list[Any]:
        """Return the values that the column can store, in the form that the ORM needs."""
        return [value for value in self._in_range(values) if self._accepts(value)]

    def _accepts(self, value: Any) -> bool:
        """Return whether the field can convert a value for the database.

        A field of the project may raise, for example for text that is no member of its enumeration.
        """
        try:
            self._target_field().get_db_prep_value(value, connections[self.using], prepared=False)
        except Exception:
            return False
        return True

    def _in_range(self, values: Iterable[Any]) -> list[Any]:
        match self.kind:
            case Kind.INTEGER:
                return [value for value in values if value in INT64]
            case Kind.DECIMAL:
                return [value for value in values if _floor(self._target_field(), value) == value]
            case Kind.DATETIME:
                within = (value for value in values if value not in (EARLIEST, LATEST))
                stored = (to_stored(moment, self.using) for moment in within)
                return [moment for moment in stored if moment is not None]
        return list(values)


def to_stored(moment: datetime, using: str) -> datetime | None:
    """Return a datetime in the form that the ORM needs.

    Returns None if it is out of range in the time zone in which the database stores it.
    """
    zone: Any = timezone.get_default_timezone()
    if settings.USE_TZ:
        zone = connections[using].timezone or UTC
    try:
        local = moment.astimezone(zone)
    except OverflowError:
        return None
    return local if settings.USE_TZ else local.replace(tzinfo=None)


def _is_decided(bound: Bound, moment: datetime) -> bool:
    """Return whether all datetimes fulfil a bound, or none does.

    All are ``>= EARLIEST`` and ``<= LATEST``, and none is ``< EARLIEST`` or ``> LATEST``.
    """
    if moment not in (EARLIEST, LATEST):
        return False
    outward = bound.upper is (moment == EARLIEST)
    return bound.strict is outward


def _floor(field: Any, value: Decimal) -> Decimal | None:
    """Return ``value``, rounded down to the decimal places of a field.

    Returns None if the result has more digits than the field can store.
    """
    places, digits = field.decimal_places or 0, field.max_digits
    floor = value.quantize(Decimal(1).scaleb(-places), ROUND_FLOOR, _EXACT)
    if digits is not None and abs(floor) >= Decimal(10) ** (digits - places):
        return None
    return floor


@dataclass(frozen=True, slots=True)
class OperatorSql:
    """The SQL of conditions with one operator."""

    # for a column that is not JSON
    column: Callable[[_Column, Condition], Q]
    # for JSON in PostgreSQL; for JSON in SQLite, the predicate is called
    jsonb: JsonbCondition


def _search_sql(search: TextSearch, jsonb: JsonbCondition) -> OperatorSql:
    return OperatorSql(
        lambda column, condition: Q(TextMatches(column.as_text(), search, condition.operand)),
        jsonb,
    )


# the SQL of each operator
SQL: dict[Operator, OperatorSql] = {
    IN: OperatorSql(_Column.is_in, jsonb_is_in),
    NOT_IN: OperatorSql(_Column.is_not_in, jsonb_is_not_in),
    GT: OperatorSql(_Column.compares, jsonb_compares),
    GTE: OperatorSql(_Column.compares, jsonb_compares),
    LT: OperatorSql(_Column.compares, jsonb_compares),
    LTE: OperatorSql(_Column.compares, jsonb_compares),
    CONTAINS: _search_sql(contains, jsonb_contains),
    STARTS_WITH: _search_sql(starts_with, jsonb_matches(starts_with)),
    ENDS_WITH: _search_sql(ends_with, jsonb_matches(ends_with)),
    IS_NULL: OperatorSql(_Column.is_null, jsonb_is_null),
}
