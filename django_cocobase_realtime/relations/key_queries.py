"""Key queries: querysets that are values of filters, and return keys.

In ``{"project__in": Project.objects.filter(organization__memberships__user=user)}``, the queryset
is a key query. It is compared with a field, which determines what it returns.

A moment in a key query, as in ``filter(ends__gt=timezone.now())``, is a parameter like any other:
it is compared again and again with the moment at which the query was built. That time passes is not
a write, so it changes no keys. Queries that are built at different moments are different.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

from django.core.exceptions import EmptyResultSet, FieldError
from django.db import (
    DataError,
    NotSupportedError,
    ProgrammingError,
    connections,
    models,
    transaction,
)
from django.db.models.lookups import In
from django.db.models.sql.query import Query

from .conditions import Comparisons
from .errors import UnsupportedQuery
from .key_shape import KeyShape, find_shape, parameter_type
from .table_reads import Equality, TableReads

MAX_BATCH = 1000  # queries per statement
MAX_BATCH_KEYS = 100_000  # keys of a statement that has no limit for each query


class KeyQuery:
    """A query that returns keys, resolved against the field that the keys are compared with.

    Queries are equal if their database, statement and parameters are.
    """

    __slots__ = ("_hash", "_identity", "constants", "params", "shape")

    def __init__(
        self, shape: KeyShape, params: tuple[Any, ...], constants: tuple[tuple[Any, ...], ...]
    ) -> None:
        # what the query has in common with others that differ in parameters only
        self.shape = shape
        # parameters of the statement
        self.params = params
        # values that the shape's comparisons have in this query
        self.constants = constants
        self._identity = tuple(_identity(value) for value in params)
        try:
            self._hash = hash((id(shape), self._identity))
        except TypeError:
            raise UnsupportedQuery(
                "A key query has a parameter that is not hashable: pass numbers, text, UUIDs, "
                "dates or lists of them."
            ) from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyQuery):
            return NotImplemented
        return self.shape is other.shape and self._identity == other._identity

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"<KeyQuery {self.shape.sql} {self.params}>"

    @property
    def using(self) -> str:
        """Alias of the database."""
        return self.shape.using

    @property
    def tables(self) -> frozenset[str]:
        """Labels of the models whose tables the query reads, through tables included."""
        return self.shape.tables

    def table_reads(self, label: str) -> tuple[TableReads, ...]:
        """Return what the query reads of a table, for each alias that the table has in it."""
        comparisons = self.shape.comparisons

        def equality(number: int) -> Equality:
            comparison = comparisons[number]
            values = frozenset(self.constants[number])
            return Equality(comparison.attname, comparison.field, values)

        return tuple(
            TableReads(
                reads.columns,
                None
                if reads.alternatives is None
                else tuple(tuple(map(equality, numbers)) for numbers in reads.alternatives),
            )
            for reads in self.shape.reads.get(label, ())
        )

    @classmethod
    def resolve(
        cls,
        model: type[models.Model],
        field_name: str,
        queryset: models.QuerySet[Any],
        using: str,
    ) -> KeyQuery:
        """Return the key query of a queryset that is compared with a field of a model.

        ``field_name`` may be ``"pk"``. Raises `UnsupportedQuery`.
        """
        place = f"The queryset for {model._meta.label}.{field_name}"
        if not isinstance(queryset, models.QuerySet):
            raise UnsupportedQuery(f"{place} is a {type(queryset).__name__}: pass a QuerySet.")
        chosen: str | None = getattr(queryset, "_db", None)
        if chosen not in (None, using):
            raise UnsupportedQuery(
                f"{place} is read from the database {chosen!r}, but the rows of the "
                f"collection are in {using!r}: remove using({chosen!r})."
            )
        field: Any = model._meta.pk if field_name == "pk" else model._meta.get_field(field_name)
        try:
            query = _inner_query(model, field, queryset, using)
            compiler = query.clone().get_compiler(using)
            sql, params = compiler.as_sql()
            if compiler.select:
                _require_same_kind(field, compiler.select[0][0].output_field, place)
        except EmptyResultSet:
            sql, params = "", ()
        except (ValueError, TypeError, FieldError, NotSupportedError) as error:
            raise UnsupportedQuery(f"{place} cannot be compared with the field: {error}") from error
        comparisons = Comparisons(query)
        shape = find_shape(using, sql, _target_field(field), query, comparisons)
        constants = tuple(comparison.values for comparison in comparisons.items)
        return cls(shape, tuple(params), constants)

    def read_keys(self, limit: int) -> list[Any]:
        """Return the keys without null, each once, but at most ``limit + 1`` of them."""
        if not self.shape.sql:
            return []
        with connections[self.using].cursor() as cursor:
            cursor.execute(self.shape.statement(limit), self.params)
            return self.shape.convert(key for (key,) in cursor.fetchall())


def read_many(queries: Sequence[KeyQuery], limit: int) -> list[list[Any]]:
    """Return the keys of several queries, each as `KeyQuery.read_keys` does.

    On PostgreSQL, one statement reads up to `MAX_BATCH` queries of one shape.
    """
    shapes: dict[KeyShape, dict[KeyQuery, list[Any]]] = {}
    for query in queries:
        shapes.setdefault(query.shape, {})[query] = []
    for shape, results in shapes.items():
        waiting = iter(list(results))
        while batch := list(islice(waiting, MAX_BATCH)):
            keys = _read_batch(shape, batch, limit) if len(batch) > 1 else None
            for number, query in enumerate(batch):
                results[query] = query.read_keys(limit) if keys is None else keys[number]
    return [shapes[query.shape][query] for query in queries]


def _read_batch(shape: KeyShape, queries: list[KeyQuery], limit: int) -> list[list[Any]] | None:
    """Read queries of one shape in one statement. Returns None if that is not possible."""
    connection = connections[shape.using]
    if connection.vendor != "postgresql" or not shape.sql:
        return None
    columns = list(zip(*(query.params for query in queries), strict=True))
    identities = zip(*(query._identity for query in queries), strict=True)
    varying = [n for n, values in enumerate(identities) if any(v != values[0] for v in values)]
    types = [parameter_type(columns[n]) for n in varying]
    known = [type for type in types if type is not None]
    if len(known) < len(types):
        return None
    arrays = [[_plain(value) for value in columns[n]] for n in varying]
    fixed = [values[0] for n, values in enumerate(columns) if n not in varying]
    statement = shape.batch_statement(varying, known, MAX_BATCH_KEYS, per_query=False)
    if statement in shape.refused:
        return None
    parameters = [*arrays, *fixed]
    # PostgreSQL refuses all statements of a transaction after one that failed
    savepoint = transaction.atomic(using=shape.using) if connection.in_atomic_block else None
    try:
        with savepoint or nullcontext(), connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            rows = cursor.fetchall()
    except DataError:
        return None
    except (ProgrammingError, NotSupportedError):
        shape.refused.add(statement)
        return None
    if len(rows) > MAX_BATCH_KEYS:
        statement = shape.batch_statement(varying, known, limit, per_query=True)
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            rows = cursor.fetchall()
    keys: list[list[Any]] = [[] for _ in queries]
    for (number, _), key in zip(rows, shape.convert(key for _, key in rows), strict=True):
        if len(keys[number - 1]) <= limit:
            keys[number - 1].append(key)
    return keys


def _plain(value: Any) -> Any:
    """Return an integer without the type that Django gives it for one column."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _inner_query(
    model: type[models.Model], field: Any, queryset: models.QuerySet[Any], using: str
) -> Query:
    """Return the query of a queryset as Django compares it with a field."""
    if isinstance(field, models.CompositePrimaryKey):
        raise ValueError("it is not compared as one column")
    compared: models.QuerySet[Any] = models.QuerySet(model, using=using)
    where = compared.filter(**{f"{field.name}__in": queryset}).query.where
    lookup = where.children[0]
    if not isinstance(lookup, In) or not isinstance(lookup.rhs, Query):
        raise ValueError("it is not compared as one column")
    return lookup.rhs


def _require_same_kind(field: Any, returned: Any, place: str) -> None:
    """Refuse keys that the database would convert, or whose equality Python does not share."""
    target, returned = _target_field(field), _target_field(returned)
    if _kind(target) != _kind(returned):
        raise UnsupportedQuery(
            f"{place} returns values of a {type(returned).__name__}, but the field holds those of "
            f'a {type(target).__name__}: name the field that it returns, as in values("pk").'
        )
    if getattr(target, "db_collation", None) or getattr(returned, "db_collation", None):
        raise UnsupportedQuery(
            f"{place} returns text with a collation of its own, which Python cannot compare: "
            "return another key."
        )


def _target_field(field: Any) -> Any:
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    return field


def _kind(field: Any) -> str:
    if isinstance(field, models.IntegerField):
        return "integer"
    if isinstance(field, models.CharField | models.TextField):
        return "text"
    return str(field.get_internal_type())


def _identity(value: Any) -> Any:
    """Return a hashable value that is equal for equal parameters of one type only."""
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_identity, value))
    wrapped = getattr(value, "obj", None)
    if wrapped is not None:  # JSON of psycopg
        return type(value), repr(wrapped)
    return type(value), value
