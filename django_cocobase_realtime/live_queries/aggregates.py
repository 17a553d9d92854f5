"""Aggregates of rows as they were at a position of their stream: `aggregates_as_of`.

The database aggregates the rows without those that have events after the position (`touched`).
`Fold` adds these as they were at the position. All queries see one state of the database, unless a
transaction of the project is open. Then they are repeated until no event is new.

Sums are exact on PostgreSQL. SQLite stores decimals as floating point numbers with 15 digits, and
sums those of fields with more than 18 digits in the same way. Other sums on SQLite are those of
integers, in two halves, because it refuses sums that do not fit into 64 bits.
"""

from __future__ import annotations

from collections.abc import Collection as Keys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any

from django.db import connections, models
from django.db.models import Count, F, Func, Max, Min, Q, QuerySet, Sum, TextField
from django.db.models.functions import Cast, Collate

from ..declarations.collection import Collection
from ..declarations.serialization import Encoder, encode_raw, field_encoder, raw_column
from ..events import Image
from ..filters import Filter, Kind, Row
from ..filters.nodes import Condition, Node, all_of, any_of
from ..filters.operators import IN, IS_NULL
from ..filters.orm import to_q
from ..filters.schema import FieldSpec, value_of
from ..filters.sql import code_point_collation
from ..log.as_of import images_as_of
from ..log.cursor import Position
from ..log.touched import TooManyTouched, TouchedDocuments, read_touched
from ..utils.transactions import read_snapshot
from .field_values import EXACT, ReadValues, Total
from .fold import Fold, GroupKey, Inconsistent, TooManyGroups
from .queries import AggregateQuery

MAX_READS = 3  # of rows within a transaction of the project, while others change them
MAX_SELECTED = 50  # groups that a condition selects; if they are more, all groups are read
# rows that a query may return for each group: some values that are equal for filters differ in SQL
ROWS_PER_GROUP = 4
MAX_SCALED_DIGITS = 18  # of decimals that SQLite sums as integers
FEW_DIGITS = 9  # of which no table has so many that the sum of integers exceeds 64 bits
_HALF_BITS = 32  # of the lower half of a sum in SQLite
# prefix of the names of columns
_PREFIX = "_realtime_"

# parts of templates of SQLite's SQL: the column, and whether a value of it is a number
_X = "%(expressions)s"
_IS_NUMBER = f"typeof({_X}) IN ('integer', 'real')"
# a decimal multiplied by a factor, after which it is an integer, and the same in 15 digits
_SCALED = f"({_X} * factor)"
_IN_15_DIGITS = f"CAST(printf('%%%%.15g', {_SCALED}) AS REAL)"
# the same as an integer, rounded as Django does it after an expression of SQL has calculated it
_ROUNDED = (
    f"CASE WHEN NOT {_IS_NUMBER} THEN NULL "
    f"WHEN ABS({_SCALED} - ROUND({_SCALED})) < 0.49 THEN ROUND({_SCALED}) "
    f"WHEN ABS({_IN_15_DIGITS} - CAST({_IN_15_DIGITS} AS INTEGER)) = 0.5 "
    f"THEN 2 * ROUND({_IN_15_DIGITS} / 2) ELSE ROUND({_IN_15_DIGITS}) END"
)
# decimals from which on that integer does not fit into 64 bits
_IS_LARGE = f"ABS({_SCALED}) >= 4e18"


def aggregates_as_of(
    collection: Collection,
    filter: Filter,
    query: AggregateQuery,
    position: Position | None,
    *,
    max_groups: int,
    groups: Keys[GroupKey] | None = None,
) -> Fold:
    """Return the aggregates of the rows that matched a filter at a position.

    Rows that counted as deleted are left out. Without a position, the rows are taken as they are
    now. Only these ``groups`` are complete if they are given. Raises `TooManyGroups`, `CannotUndo`,
    and exceptions of the database. The position must have been reached before the call.
    """
    selected = None if groups is None else _condition(collection, query, groups)
    if selected is not None:
        filter &= Filter(selected)
    read = partial(_read, collection, filter, query, max_groups)
    with read_snapshot(collection.database) as is_one_state:
        if position is None:
            return read(TouchedDocuments())
        for _ in range(MAX_READS):
            touched = read_touched(collection, position)
            # a count of all rows takes long if it has to look at each of them
            if is_one_state and not query.min and not query.max:
                with suppress(Inconsistent):
                    return read(touched, subtract=True)
            fold = read(touched)
            # after the rows, see `touched`
            if is_one_state or not _is_new(touched, read_touched(collection, position)):
                return fold
    raise TooManyTouched("Rows change faster than they are read.")


def _is_new(before: TouchedDocuments, after: TouchedDocuments) -> bool:
    """Return whether further documents have been touched."""
    return not after.images.keys() <= before.images.keys()


def _condition(
    collection: Collection, query: AggregateQuery, groups: Keys[GroupKey]
) -> Node | None:
    """Return a condition for the rows of groups; None if there is none, or if it is too long."""
    if not query.group_by or len(groups) > MAX_SELECTED:
        return None
    if not collection.codec.raw_names.isdisjoint(query.group_by):
        return None  # equal values may differ in the database
    specs = [collection.schema[name] for name in query.group_by]
    nodes: list[Node] = []
    for group in groups:
        if any(isinstance(key, tuple) for key in group):
            return None  # a value that filters do not compare
        conditions = [_equals(spec, key) for spec, key in zip(specs, group, strict=True)]
        nodes.append(all_of(conditions))
    return any_of(nodes)


def _equals(spec: FieldSpec, key: Any) -> Condition:
    kind = spec.compares_as
    if key is None:
        return Condition(spec.ref, kind, IS_NULL, True)
    return Condition(spec.ref, kind, IN, (value_of(kind, key),))


def _read(
    collection: Collection,
    filter: Filter,
    query: AggregateQuery,
    max_groups: int,
    touched: TouchedDocuments,
    *,
    subtract: bool = False,
) -> Fold:
    """Return the aggregates of the rows without some documents, and of these as they were.

    With ``subtract``, the database aggregates all rows, and those of the documents are subtracted.
    """
    model, using, codec = collection.concrete_model, collection.database, collection.codec
    condition = filter
    if collection.deleted_filter is not None:
        condition &= ~collection.deleted_filter
    # managers of the project may replace names of fields, or leave rows out
    rows: QuerySet[Any] = QuerySet(model, using=using).filter(to_q(condition, model, using))
    keys = [key for id in touched.images if (key := codec.key(id)) is not None]
    if keys and not subtract:
        rows = rows.filter(~Q(pk__in=keys))
    fold = Fold(query, collection.schema)
    _add_rows(collection, fold, query, rows, max_groups)
    if keys and subtract:
        for image in images_as_of(collection, keys, None).values():
            fold.apply(_matching(collection, filter, image), None)
    for _, image in touched.existing():
        fold.apply(None, _matching(collection, filter, image))
    if len(fold) > max_groups:
        raise TooManyGroups(max_groups)
    return fold


def _matching(collection: Collection, filter: Filter, image: Image) -> Row | None:
    """Return the row of a stored image if it matches, and does not count as deleted."""
    decoded = collection.codec.decode(image, collection.database)
    row = collection.row(decoded)
    return row if filter.matches(row) and not collection.is_deleted(decoded) else None


def _add_rows(
    collection: Collection,
    fold: Fold,
    query: AggregateQuery,
    rows: QuerySet[Any],
    max_groups: int,
) -> None:
    """Have the database aggregate rows, and add the results to a fold."""
    codec, using = collection.codec, collection.database
    names = dict.fromkeys((*query.sum, *query.avg, *query.min, *query.max))
    fields = [_AggregatedField(collection, query, name) for name in names]
    expressions = {f"{_PREFIX}count": Count("*")}
    for number, field in enumerate(fields):
        for name, expression in field.expressions.items():
            expressions[f"{_PREFIX}{number}_{name}"] = expression
    if not query.group_by:
        values = list(rows.aggregate(**expressions).values())
        fold.add_read({}, values[0], dict(_read_values(fields, values[1:])))
        return
    columns = {
        f"{_PREFIX}group_{number}": _group_column(collection, name)
        for number, name in enumerate(query.group_by)
    }
    encoders = [_group_encoder(collection, name) for name in query.group_by]
    grouped = rows.annotate(**columns).order_by().values(*columns).annotate(**expressions)
    max_rows = max_groups * ROWS_PER_GROUP
    read = list(grouped.values_list(*columns, *expressions)[: max_rows + 1])
    if len(read) > max_rows:
        raise TooManyGroups(max_groups)
    size = len(columns)
    for row in read:
        stored = {
            name: encode(value)
            for name, encode, value in zip(query.group_by, encoders, row[:size], strict=True)
        }
        key = codec.decode(stored, using)
        fold.add_read(key, row[size], dict(_read_values(fields, row[size + 1 :])))


def _read_values(
    fields: Iterable[_AggregatedField], columns: Sequence[Any]
) -> Iterator[tuple[str, ReadValues]]:
    """Yield what the columns of a result contain for each field."""
    start = 0
    for field in fields:
        end = start + len(field.expressions)
        yield field.name, field.read(dict(zip(field.expressions, columns[start:end], strict=True)))
        start = end


def _group_column(collection: Collection, name: str) -> Any:
    """Return an expression for the values that make groups, which are equal by code points."""
    codec, using = collection.codec, collection.database
    column: Any = F(str(codec.fields[name].attname))
    if name in codec.raw_names:
        return raw_column(column, True)
    return _as_text(column, using) if collection.schema[name].compares_as is Kind.TEXT else column


def _group_encoder(collection: Collection, name: str) -> Encoder:
    codec = collection.codec
    return encode_raw if name in codec.raw_names else field_encoder(codec.fields[name])


def _as_text(column: Any, using: str) -> Any:
    """Return a column as a text that is compared by code points."""
    if connections[using].vendor == "postgresql":
        column = Cast(column, TextField())  # other types may ignore the collation
    return Collate(column, code_point_collation(using))


class _AggregatedField:
    """A field whose values the database aggregates."""

    def __init__(self, collection: Collection, query: AggregateQuery, name: str) -> None:
        self.name = name
        self._encode = field_encoder(collection.codec.fields[name])
        field: Any = collection.codec.fields[name]
        # a generated field is described by its output
        field = field.output_field if getattr(field, "generated", False) else field
        is_decimal = collection.schema[name].kind is Kind.DECIMAL
        self._places: int = (field.decimal_places or 0) if is_decimal else 0
        self._is_decimal = is_decimal
        column = _Column(collection, name, field)
        value = column.value()
        # what the database returns of the field, by a name
        self.expressions: dict[str, Any] = {"n": Count(value)}
        if name in query.sum or name in query.avg:
            self.expressions |= column.totals(self._places)
        if name in query.min:
            self.expressions["least"] = Min(value)
        if name in query.max:
            self.expressions["greatest"] = Max(value)

    def read(self, columns: Mapping[str, Any]) -> ReadValues:
        """Return what the columns of a result contain, by the names in ``expressions``."""
        encode = self._encode
        least, greatest = encode(columns.get("least")), encode(columns.get("greatest"))
        total = self._total(columns) if columns["n"] else None
        return ReadValues(columns["n"], total, least, greatest)

    def _total(self, columns: Mapping[str, Any]) -> Total | None:
        if "total" in columns:
            total = columns["total"]
            return Decimal(total) if self._is_decimal else int(total)
        if "low" not in columns:
            return None
        low, high = columns["low"] or 0, columns.get("high") or 0
        whole = (high << _HALF_BITS) + low
        if not self._is_decimal:
            return whole
        exact = EXACT.scaleb(Decimal(whole), -self._places)
        # None unless there are values that are too large to be exact
        rest = Decimal(repr(columns.get("rest") or 0.0))
        return EXACT.add(exact, EXACT.scaleb(rest, -self._places)) if rest else exact


class _Column:
    """A column as expressions that are null for all that is not a value of its field."""

    def __init__(self, collection: Collection, name: str, field: Any) -> None:
        self._column = F(str(collection.codec.fields[name].attname))
        self._field = field
        self._kind = collection.schema[name].compares_as
        self._using = collection.database
        self._is_sqlite = connections[self._using].vendor == "sqlite"

    def value(self) -> Any:
        """Return the values."""
        match self._kind:
            case Kind.TEXT:
                return _as_text(self._column, self._using)
            case Kind.INTEGER if self._is_sqlite:
                return self._sql(f"CASE WHEN {_IS_NUMBER} THEN CAST({_X} AS INTEGER) END")
            case Kind.DECIMAL | Kind.FLOAT if self._is_sqlite:
                return self._sql(f"CASE WHEN {_IS_NUMBER} THEN {_X} END")
            case Kind.DECIMAL | Kind.FLOAT:
                return self._sql(f"NULLIF({_X}, 'NaN')")
        return self._column

    def totals(self, places: int) -> dict[str, Any]:
        """Return the sum of integers, or of decimals with some places, in parts."""
        if not self._is_sqlite:
            return {"total": Sum(self.value())}
        if self._kind is Kind.INTEGER:
            return _halves(self.value())
        factor = f"1{'0' * places}.0"
        large, rounded = (sql.replace("factor", factor) for sql in (_IS_LARGE, _ROUNDED))
        integer = models.BigIntegerField()
        digits = self._field.max_digits or MAX_SCALED_DIGITS + 1
        if digits <= MAX_SCALED_DIGITS:
            whole = self._sql(f"CAST({rounded} AS INTEGER)", integer)
            return {"low": Sum(whole)} if digits <= FEW_DIGITS else _halves(whole)
        parts = _halves(
            self._sql(f"CASE WHEN NOT {large} THEN CAST({rounded} AS INTEGER) END", integer)
        )
        rest = f"CASE WHEN {_IS_NUMBER} AND {large} THEN {_X} * {factor} END"
        return parts | {"rest": Sum(self._sql(rest, models.FloatField()))}

    def _sql(self, template: str, output_field: Any = None) -> Any:
        return Func(self._column, template=template, output_field=output_field or self._field)


def _halves(integer: Any) -> dict[str, Any]:
    """Return the sums of both halves of an integer, which do not exceed 64 bits themselves."""
    field = models.BigIntegerField()
    high = Func(integer, template=f"(({_X}) >> {_HALF_BITS})", output_field=field)
    low = Func(integer, template=f"(({_X}) & {2**_HALF_BITS - 1})", output_field=field)
    return {"high": Sum(high), "low": Sum(low)}
