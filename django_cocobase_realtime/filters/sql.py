"""SQL of conditions on text and JSON, for which Django's lookups differ from the predicate.

Text is searched without its case. For texts that are not ASCII, SQLite calls the Python function
that the predicate uses; PostgreSQL uses ``lower`` with a collation that supports Unicode. For JSON,
SQLite calls the predicate itself as a function, and PostgreSQL uses jsonb operators. Other
databases are not supported. ``orm.SQL`` lists the functions of each operator.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.db import NotSupportedError, connections
from django.db.backends.signals import connection_created
from django.db.models import BooleanField, Func, TextField

from .nodes import Condition
from .operators import OPERATORS, Operator
from .predicate import compile_node
from .row import Predicate, Row
from .schema import FieldSpec, Kind, fold

# SQL and its parameters
Sql = tuple[str, list[Any]]

# PostgreSQL's collations with which ``lower`` supports Unicode: its own (since version 17), and
# those of the operating system
_COLLATIONS = ("pg_c_utf8", "C.utf8", "C.UTF-8")


# text


def code_point_collation(using: str) -> str:
    """Return the name of the collation that compares texts by code points in a database."""
    return "C" if connections[using].vendor == "postgresql" else "BINARY"


# returns the SQL of a search, given the SQL of the folded text, its parameters, the folded text to
# find, and the name of the database's function that returns a position (``instr``, ``strpos``)
TextSearch = Callable[[str, list[Any], str, str], Sql]


def contains(text: str, params: list[Any], sought: str, position: str) -> Sql:
    """Return SQL for whether a text contains another."""
    return f"{position}({text}, %s) > 0", [*params, sought]


def starts_with(text: str, params: list[Any], sought: str, position: str) -> Sql:
    """Return SQL for whether a text starts with another."""
    return f"substr({text}, 1, %s) = %s", [*params, len(sought), sought]


def ends_with(text: str, params: list[Any], sought: str, position: str) -> Sql:
    """Return SQL for whether a text ends with another."""
    if not sought:
        return f"({text}) IS NOT NULL", params
    start = f"length({text}) + 1 - %s"
    return (
        f"length({text}) >= %s AND substr({text}, {start}) = %s",
        [*params, len(sought), *params, *params, len(sought), sought],
    )


class Host(Func):
    """An IP address column of PostgreSQL as text, without the netmask."""

    function = "HOST"
    output_field = TextField()


class _TextFunc(Func):
    """A condition on a text, for SQLite and PostgreSQL."""

    output_field = BooleanField()

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:  # type: ignore[override]
        """Raise an exception on other databases."""
        raise NotSupportedError(f"Filters on text do not support {connection.vendor}.")


class TextIsIn(_TextFunc):
    """Whether a text equals one of several, compared by code points and not by its collation.

    The SQL is one ``IN``: SQLite refuses expressions that are more than 1,000 levels deep, and a
    chain of ``OR`` has as many levels as parts.
    """

    def __init__(self, text: Any, values: list[str]) -> None:
        super().__init__(text)
        self.values = values

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Compare with SQLite's collation for bytes."""
        text, params = compiler.compile(self.source_expressions[0])
        return f"({text}) COLLATE BINARY IN ({self._placeholders})", [*params, *self.values]

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Sql:
        """Compare with PostgreSQL's collation for code points."""
        text, params = compiler.compile(self.source_expressions[0])
        sql = f'({text})::text COLLATE "C" IN ({self._placeholders})'
        return sql, [*params, *self.values]

    @property
    def _placeholders(self) -> str:
        return ", ".join(["%s"] * len(self.values))


class IsInList(Func):
    """Whether a value equals one of several integers or texts, in SQLite.

    The values are one parameter: SQLite limits the number of parameters of a query.
    """

    output_field = BooleanField()

    def __init__(self, value: Any, members: list[int | str]) -> None:
        super().__init__(value)
        self.members = members

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:  # type: ignore[override]
        """Compare with SQLite's collation for bytes."""
        value, params = compiler.compile(self.source_expressions[0])
        members = "(SELECT value FROM json_each(%s))"
        return f"({value}) COLLATE BINARY IN {members}", [*params, json.dumps(self.members)]


class TextMatches(_TextFunc):
    """Whether a text, without its case, contains a folded text such as "news".

    ``search`` is `contains`, `starts_with` or `ends_with`.
    """

    def __init__(self, text: Any, search: TextSearch, sought: str) -> None:
        super().__init__(text)
        self.search = search
        self.sought = sought

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Fold the text with ``lower`` if it is ASCII, as most are, and otherwise in Python.

        A Python function holds the interpreter's lock, so that a query of many rows would delay
        the event loop.
        """
        text, params = compiler.compile(self.source_expressions[0])
        is_ascii = f"length(CAST({text} AS BLOB)) = length({text})"
        folded = f"CASE WHEN {is_ascii} THEN lower({text}) ELSE realtime_fold({text}) END"
        return self.search(folded, [*params] * 4, self.sought, "instr")

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Sql:
        """Fold the text with ``lower``."""
        text, params = compiler.compile(self.source_expressions[0])
        lower = _lower(f"({text})::text", connection)
        return self.search(lower, list(params), self.sought, "strpos")


def _lower(text: str, connection: Any) -> str:
    collation = _unicode_collation(connection.alias)
    return f"lower({text})" if collation is None else f'lower({text} COLLATE "{collation}")'


@lru_cache(maxsize=16)
def _unicode_collation(alias: str) -> str | None:
    """Return the first of `_COLLATIONS` that the server has.

    Returns None if it has none. The collation of the database is used then, which may fold
    the case of ASCII letters only.
    """
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT collname FROM pg_collation WHERE collname = ANY(%s)", [[*_COLLATIONS]]
        )
        available = {name for (name,) in cursor.fetchall()}
    return next((name for name in _COLLATIONS if name in available), None)


# JSON


@dataclass(frozen=True, slots=True)
class Jsonb:
    """SQL for a jsonb value in PostgreSQL."""

    sql: str
    # parameters of the SQL, which must be repeated each time the SQL is repeated
    params: list[Any]
    connection: Any

    @property
    def text(self) -> str:
        """SQL for the value as text, without the quotes of JSON."""
        return f"({self.sql} #>> '{{}}')"

    def has_type(self, name: str) -> str:
        """Return SQL for whether the value has a JSON type, such as "string"."""
        return f"jsonb_typeof({self.sql}) = '{name}'"

    def search(self, search: TextSearch, sought: str) -> Sql:
        """Return SQL for whether this text, without its case, contains a folded text.

        ``search`` is `contains`, `starts_with` or `ends_with`.
        """
        return search(_lower(self.text, self.connection), self.params, sought, "strpos")


# returns the SQL of a condition on a jsonb value
JsonbCondition = Callable[[Jsonb, Condition], Sql]


def jsonb_is_null(value: Jsonb, condition: Condition) -> Sql:
    """Return SQL for whether a value is missing or JSON's null."""
    is_null = f"({value.sql} IS NULL OR {value.has_type('null')})"
    return is_null if condition.operand else f"NOT {is_null}", [*value.params, *value.params]


def jsonb_is_in(value: Jsonb, condition: Condition) -> Sql:
    """Return SQL for whether a value is one of the operand's values."""
    members = _jsonb_literals(condition)
    return f"{value.sql} IN ({_jsonb_placeholders(members)})", [*value.params, *members]


def jsonb_is_not_in(value: Jsonb, condition: Condition) -> Sql:
    """Return SQL for whether a value is not null and not one of the operand's values."""
    params = [*value.params, *value.params]
    not_in = ""
    if members := _jsonb_literals(condition):
        not_in = f" AND {value.sql} NOT IN ({_jsonb_placeholders(members)})"
        params += [*value.params, *members]
    return f"({value.sql} IS NOT NULL AND jsonb_typeof({value.sql}) <> 'null'{not_in})", params


def _jsonb_literals(condition: Condition) -> list[str]:
    return sorted(json.dumps(inner) for _, inner in condition.operand)


def _jsonb_placeholders(members: list[str]) -> str:
    return ", ".join(["%s::jsonb"] * len(members))


def jsonb_compares(value: Jsonb, condition: Condition) -> Sql:
    """Return SQL for whether a value has the operand's type, and is above or below the operand."""
    assert condition.operator.bound is not None
    sign = condition.operator.bound.sign
    json_type, bound = condition.operand
    if json_type == "number":
        comparison = f"({value.has_type('number')} AND {value.sql} {sign} %s::jsonb)"
        return comparison, [*value.params, *value.params, json.dumps(bound)]
    comparison = f'({value.has_type("string")} AND {value.text} COLLATE "C" {sign} %s)'
    return comparison, [*value.params, *value.params, bound]


def jsonb_contains(value: Jsonb, condition: Condition) -> Sql:
    """Return SQL for whether an array has the operand as a member, or a text contains it."""
    (_, member), folded = condition.operand
    in_array = f"({value.has_type('array')} AND {value.sql} @> %s::jsonb)"
    params = [*value.params, *value.params, json.dumps(member)]
    if folded is None:
        return in_array, params
    in_text, text_params = value.search(contains, folded)
    return (
        f"({in_array} OR ({value.has_type('string')} AND {in_text}))",
        [*params, *value.params, *text_params],
    )


def jsonb_matches(search: TextSearch) -> JsonbCondition:
    """Return a function that returns SQL for whether a text begins or ends with the operand.

    ``search`` is `starts_with` or `ends_with`.
    """

    def matches(value: Jsonb, condition: Condition) -> Sql:
        search_sql, params = value.search(search, condition.operand)
        return f"({value.has_type('string')} AND {search_sql})", [*value.params, *params]

    return matches


class JsonMatches(Func):
    """Whether a JSON column, or the value at a path in it, fulfils a condition."""

    output_field = BooleanField()

    def __init__(self, column: Any, condition: Condition, jsonb: JsonbCondition) -> None:
        super().__init__(column)
        self.condition = condition
        self.jsonb = jsonb

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:  # type: ignore[override]
        """Raise an exception on other databases."""
        raise NotSupportedError(f"Filters on JSON do not support {connection.vendor}.")

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Call the predicate through the function that `connect` adds to connections."""
        column, params = compiler.compile(self.source_expressions[0])
        return f"realtime_json({column}, %s)", [*params, _dump_condition(self.condition)]

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Sql:
        """Compare the value at the path as jsonb. Like `Row.raw`, a path leads through objects."""
        column, params = compiler.compile(self.source_expressions[0])
        path = self.condition.ref[1:]
        value = f"({column}{' -> %s::text' * len(path)})"
        return self.jsonb(Jsonb(value, [*params, *path], connection), self.condition)


# functions that SQLite calls


def _dump_condition(condition: Condition) -> str:
    """Return a condition on JSON as text, for the parameter of ``realtime_json``."""
    return json.dumps([condition.ref, condition.operator.name, condition.operand])


def _load_operand(dumped: Any) -> Any:
    return tuple(map(_load_operand, dumped)) if isinstance(dumped, list) else dumped


@lru_cache(maxsize=128)  # a small number, since a text may be as long as a frame
def _load_condition(dumped: str) -> tuple[str, Predicate, dict[str, FieldSpec]]:
    """Return the field's name, the predicate and the schema for a text of `_dump_condition`."""
    path, name, operand = json.loads(dumped)
    operator = OPERATORS[name]
    assert isinstance(operator, Operator)
    condition = Condition(tuple(path), Kind.JSON, operator, _load_operand(operand))
    return path[0], compile_node(condition), {path[0]: FieldSpec(path[0], Kind.JSON)}


def _json_matches(column: str | None, dumped: str) -> bool:
    name, matches, schema = _load_condition(dumped)
    value = None if column is None else json.loads(column)
    return matches(Row({name: value}, schema))


def _fold(text: Any) -> str | None:
    return None if text is None else fold(str(text))


def _add_functions(connection: Any, **kwargs: Any) -> None:
    if connection.vendor == "sqlite":
        create = connection.connection.create_function
        create("realtime_fold", 1, _fold, deterministic=True)
        create("realtime_json", 2, _json_matches, deterministic=True)


def connect() -> None:
    """Add the functions that filters call to all SQLite connections, present and future ones."""
    connection_created.connect(_add_functions, dispatch_uid="django_cocobase_realtime.filters")
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None:
            _add_functions(connection)
