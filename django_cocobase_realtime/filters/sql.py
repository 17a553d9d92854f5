"""SQL that agrees with the predicate: text without its case, and JSON.

On SQLite a condition on JSON *is* the predicate, called by the database; text is folded by the
same function. On PostgreSQL both are SQL: ``lower`` by a Unicode-aware collation, and jsonb.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from django.db import NotSupportedError, connections
from django.db.backends.signals import connection_created
from django.db.models import BooleanField, Func, TextField

from .nodes import Condition, Op
from .predicate import Predicate, compile_node
from .row import Row
from .schema import FieldSpec, Kind, fold

_COLLATIONS = ("pg_c_utf8", "C.utf8", "C.UTF-8")
"""In which PostgreSQL's ``lower`` knows Unicode: its own since 17, the system's before."""

_SIGNS = {Op.GT: ">", Op.GTE: ">=", Op.LT: "<", Op.LTE: "<="}
Sql = tuple[str, list[Any]]


class Host(Func):
    """An address of PostgreSQL as text, without a netmask."""

    function = "HOST"
    output_field = TextField()


class TextCondition(Func):
    """Whether a text contains, or begins or ends with another, without case; or equals it."""

    output_field = BooleanField()

    def __init__(self, text: Any, condition: Condition | None, equal: str = "") -> None:
        super().__init__(text)
        self.condition = condition
        self.equal_to = equal

    @classmethod
    def equal(cls, text: Any, value: str) -> TextCondition:
        """Equal to the letter, whatever the column's collation."""
        return cls(text, None, value)

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:  # type: ignore[override]
        """Other databases are not supported."""
        raise NotSupportedError(f"Filters by text do not know {connection.vendor}.")

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """With ``realtime_fold``, which every connection has."""
        text, params = compiler.compile(self.source_expressions[0])
        if self.condition is None:
            return f"({text}) = %s COLLATE BINARY", [*params, self.equal_to]
        return _search(self.condition, f"realtime_fold({text})", list(params), "instr(%s, %s) > 0")

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Sql:
        """With ``lower``."""
        text, params = compiler.compile(self.source_expressions[0])
        if self.condition is None:
            return f'({text})::text COLLATE "C" = %s', [*params, self.equal_to]
        lower = _lower(f"({text})::text", connection)
        return _search(self.condition, lower, list(params), "strpos(%s, %s) > 0")


def _search(
    condition: Condition, text: str, params: list[Any], find: str, sought: str | None = None
) -> Sql:
    """``text`` is folded already, and so is what is ``sought``, by default the operand."""
    sought = condition.operand if sought is None else sought
    assert isinstance(sought, str)
    match condition.op:
        case Op.STARTS_WITH:
            return f"substr({text}, 1, %s) = %s", [*params, len(sought), sought]
        case Op.ENDS_WITH if not sought:
            return f"({text}) IS NOT NULL", params
        case Op.ENDS_WITH:
            length = f"length({text}) + 1 - %s"
            return (
                f"length({text}) >= %s AND substr({text}, {length}) = %s",
                [*params, len(sought), *params, *params, len(sought), sought],
            )
    return find % (text, "%s"), [*params, sought]


def _lower(text: str, connection: Any) -> str:
    collation = _unicode_collation(connection.alias)
    return f"lower({text})" if collation is None else f'lower({text} COLLATE "{collation}")'


@lru_cache(maxsize=16)
def _unicode_collation(alias: str) -> str | None:
    """The best of what the server has; None: the database's own, which may know ASCII alone."""
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT collname FROM pg_collation WHERE collname = ANY(%s)", [[*_COLLATIONS]]
        )
        found = {name for (name,) in cursor.fetchall()}
    return next((name for name in _COLLATIONS if name in found), None)


class JsonCondition(Func):
    """A condition on a JSON column, or on a path into it."""

    output_field = BooleanField()

    def __init__(self, column: Any, condition: Condition) -> None:
        super().__init__(column)
        self.condition = condition

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:  # type: ignore[override]
        """Other databases are not supported."""
        raise NotSupportedError(f"Filters on JSON do not know {connection.vendor}.")

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """The predicate itself."""
        column, params = compiler.compile(self.source_expressions[0])
        return f"realtime_json({column}, %s)", [*params, _packed(self.condition)]

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Sql:
        """By jsonb's operators: a path goes through objects alone, as the predicate's does."""
        column, params = compiler.compile(self.source_expressions[0])
        path = self.condition.ref[1:]
        value = f"({column}{' -> %s::text' * len(path)})"
        return _jsonb(self.condition, value, [*params, *path], connection)


def _jsonb(condition: Condition, value: str, params: list[Any], connection: Any) -> Sql:
    op, operand = condition.op, condition.operand
    text = f"({value} #>> '{{}}')"

    def is_a(kind: str) -> str:
        return f"jsonb_typeof({value}) = '{kind}'"

    match op:
        case Op.IS_NULL:
            null = f"({value} IS NULL OR {is_a('null')})"
            return null if operand else f"NOT {null}", [*params, *params]
        case Op.IN:
            members = sorted(json.dumps(inner) for _, inner in operand)
            marks = ", ".join(["%s::jsonb"] * len(members))
            return f"{value} IN ({marks})", [*params, *members]
        case Op.NOT_IN:
            members = sorted(json.dumps(inner) for _, inner in operand)
            apart = f" AND {value} NOT IN ({', '.join(['%s::jsonb'] * len(members))})"
            present = f"({value} IS NOT NULL AND jsonb_typeof({value}) <> 'null'"
            tail = [*params, *members] if members else []
            return f"{present}{apart if members else ''})", [*params, *params, *tail]
        case Op.CONTAINS:
            (_, inner), folded = operand
            member = f"({is_a('array')} AND {value} @> %s::jsonb)"
            found = [*params, *params, json.dumps(inner)]
            if folded is None:
                return member, found
            within, more = _search(
                condition, _lower(text, connection), params, "strpos(%s, %s) > 0", folded
            )
            return f"({member} OR ({is_a('string')} AND {within}))", [*found, *params, *more]
        case Op.STARTS_WITH | Op.ENDS_WITH:
            within, more = _search(condition, _lower(text, connection), params, "")
            return f"({is_a('string')} AND {within})", [*params, *more]
    kind, inner = operand
    if kind == "number":
        compared, bound = f"{value} {_SIGNS[op]} %s::jsonb", json.dumps(inner)
        return f"({is_a('number')} AND {compared})", [*params, *params, bound]
    compared = f'{text} COLLATE "C" {_SIGNS[op]} %s'
    return f"({is_a('string')} AND {compared})", [*params, *params, inner]


# SQLite calls these


def _packed(condition: Condition) -> str:
    operand = condition.operand
    if condition.op in (Op.IN, Op.NOT_IN):
        operand = sorted(operand, key=repr)
    return json.dumps([condition.ref, condition.op.value, operand])


@lru_cache(maxsize=128)  # of up to a frame's length
def _unpacked(text: str) -> tuple[str, Predicate, dict[str, FieldSpec]]:
    ref, op, operand = json.loads(text)
    match Op(op):
        case Op.IN | Op.NOT_IN:
            operand = frozenset((kind, inner) for kind, inner in operand)
        case Op.CONTAINS:
            operand = (tuple(operand[0]), operand[1])
        case Op.GT | Op.GTE | Op.LT | Op.LTE:
            operand = tuple(operand)
    condition = Condition(tuple(ref), Kind.JSON, Op(op), operand)
    return ref[0], compile_node(condition), {ref[0]: FieldSpec(ref[0], Kind.JSON)}


def _json_matches(column: str | None, packed: str) -> bool:
    name, matches, schema = _unpacked(packed)
    value = None if column is None else json.loads(column)
    return matches(Row({name: value}, schema))


def _fold(text: Any) -> str | None:
    return None if text is None else fold(str(text))


def _on_connection(connection: Any, **kwargs: Any) -> None:
    if connection.vendor == "sqlite":
        create = connection.connection.create_function
        create("realtime_fold", 1, _fold, deterministic=True)
        create("realtime_json", 2, _json_matches, deterministic=True)


def connect() -> None:
    """Give SQLite's connections what filters call there, those that are open already too."""
    connection_created.connect(_on_connection, dispatch_uid="django_cocobase_realtime.filters")
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None:
            _on_connection(connection)
