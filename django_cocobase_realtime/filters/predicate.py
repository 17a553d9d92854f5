"""The first face of a filter: a function of a row, compiled once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from .nodes import And, Condition, Node, Not, Op, Or
from .row import Row
from .schema import Kind

Predicate = Callable[[Row], bool]


@lru_cache(maxsize=1024)
def compile_node(node: Node) -> Predicate:
    """A function that tells whether a row matches, mostly the same for the same node.

    It never raises.
    """
    match node:
        case Condition():
            return _condition(node)
        case And(()):
            return lambda row: True
        case Or(()):
            return lambda row: False
        case And(parts):
            return _every([compile_node(part) for part in _cheapest_first(parts)])
        case Or(parts):
            return _some([compile_node(part) for part in _cheapest_first(parts)])
        case Not(part):
            inner = compile_node(part)
            return lambda row: not inner(row)


def _cheapest_first(parts: tuple[Node, ...]) -> list[Node]:
    return sorted(parts, key=lambda part: not (isinstance(part, Condition) and part.op is Op.IN))


def _every(tests: list[Predicate]) -> Predicate:
    if len(tests) == 2:
        first, second = tests
        return lambda row: first(row) and second(row)

    def every(row: Row) -> bool:
        for test in tests:  # noqa: SIM110 - a generator costs more than the tests
            if not test(row):
                return False
        return True

    return every


def _some(tests: list[Predicate]) -> Predicate:
    def some(row: Row) -> bool:
        for test in tests:  # noqa: SIM110
            if test(row):
                return True
        return False

    return some


def _condition(condition: Condition) -> Predicate:
    ref, operand = condition.ref, condition.operand
    match condition.op:
        case Op.IN:
            if len(operand) == 1:
                (only,) = operand
                return lambda row: row.get(ref) == only
            return lambda row: row.get(ref) in operand
        case Op.NOT_IN if condition.kind is Kind.JSON:
            # arrays and objects are values too, and equal to none of these
            return lambda row: row.raw(ref) is not None and row.get(ref) not in operand
        case Op.NOT_IN:
            return lambda row: (value := row.get(ref)) is not None and value not in operand
        case Op.IS_NULL:
            return lambda row: (row.raw(ref) is None) is operand
        case Op.CONTAINS if condition.kind is Kind.JSON:
            return _json_contains(condition)
        case Op.CONTAINS:
            return lambda row: (text := row.folded(ref)) is not None and operand in text
        case Op.STARTS_WITH:
            return lambda row: (text := row.folded(ref)) is not None and text.startswith(operand)
        case Op.ENDS_WITH:
            return lambda row: (text := row.folded(ref)) is not None and text.endswith(operand)
    return _ordered(condition)


def _ordered(condition: Condition) -> Predicate:
    ref, bound = condition.ref, condition.operand
    if condition.kind is Kind.JSON:
        tag, inner = bound
        compare = _COMPARE[condition.op]

        def json_ordered(row: Row) -> bool:
            value = row.get(ref)
            return value is not None and value[0] == tag and compare(value[1], inner)

        return json_ordered
    match condition.op:
        case Op.GT:
            return lambda row: (value := row.get(ref)) is not None and value > bound
        case Op.GTE:
            return lambda row: (value := row.get(ref)) is not None and value >= bound
        case Op.LT:
            return lambda row: (value := row.get(ref)) is not None and value < bound
    return lambda row: (value := row.get(ref)) is not None and value <= bound


_COMPARE: dict[Op, Callable[[Any, Any], bool]] = {
    Op.GT: lambda a, b: a > b,
    Op.GTE: lambda a, b: a >= b,
    Op.LT: lambda a, b: a < b,
    Op.LTE: lambda a, b: a <= b,
}


def _json_contains(condition: Condition) -> Predicate:
    """A member of an array, to the letter; within a text, ignoring case."""
    ref = condition.ref
    tagged, folded = condition.operand

    def contains(row: Row) -> bool:
        value = row.raw(ref)
        if isinstance(value, list):
            return any(_same(member, tagged) for member in value)
        text = row.folded(ref)
        return folded is not None and text is not None and folded in text

    return contains


def _same(member: Any, tagged: tuple[str, Any]) -> bool:
    kind, value = tagged
    match member:
        case bool():
            return kind == "boolean" and member == value
        case int() | float():
            return kind == "number" and member == value
        case str():
            return kind == "text" and member == value
    return False
