"""The operators of filters: one entry each, read by the parser, the predicate and the index.

A condition is made with an `Operator`. A `Shorthand` is a further name for conditions with
existing operators: ``eq`` is ``in`` with one value, ``between`` is ``gte`` and ``lte``.

To add an operator, add its entry to the table at the end of this module and its SQL to
``orm.SQL``. For example, for an operator ``word`` whose operand is a text::

    Operator("word", OperandType.TEXT, TEXTUAL, _has_word, substring=True)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from operator import ge, gt, le, lt
from typing import Any

from .row import Predicate, Row
from .schema import Kind, Ref


class OperandType(Enum):
    """What an operator takes. The parser turns the value in the filter into the operand."""

    # one value: 18 or "18" for an integer field; the operand is the coerced value
    VALUE = "value"
    # like VALUE, but without the booleans of JSON, which have no order
    ORDERED_VALUE = "ordered value"
    # two of these: [18, 65] or "18,65"; the operand is a pair
    ORDERED_PAIR = "ordered pair"
    # any number of values: [1, 2] or "1,2"; the operand is ``nodes.Values``
    VALUES = "values"
    # a text; the operand is the text without its case
    TEXT = "text"
    # a TEXT, but any scalar for a JSON field: the operand there is ``(tagged, folded)``, for "A"
    # ``(("text", "A"), "a")`` and for 5 ``(("number", 5), None)``
    TEXT_OR_MEMBER = "text or member"
    # true, false, 1, 0, "true", "false", "1" or "0"; the operand is a bool
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True)
class FieldKinds:
    """The kinds of fields that an operator is for."""

    # for messages, as in "contains is for text"
    label: str
    kinds: frozenset[Kind]

    def __contains__(self, kind: Kind) -> bool:
        return kind in self.kinds


@dataclass(frozen=True, slots=True)
class Bound:
    """How an operand bounds the values that it matches."""

    # the SQL operator: ">", ">=", "<" or "<="
    sign: str
    # whether values lie below the bound, not above it
    upper: bool
    # whether the bound itself is excluded
    strict: bool


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """How a condition compares a value with its operand.

    A null or missing value matches no operator but ``isnull``.
    """

    # its name in filters and in the canonical text of conditions
    name: str
    operand: OperandType
    kinds: FieldKinds
    # makes the test of a row from a condition's ref, kind and operand
    compile: Callable[[Ref, Kind, Any], Predicate]
    # for the index: the value is one of the operand's values
    equality: bool = False
    # for the index: how the operand bounds the value
    bound: Bound | None = None
    # for the index: the value's text without its case contains the operand, if that is a text
    substring: bool = False

    def expand(self, operand: Any) -> Iterable[tuple[Operator, Any]]:
        """Return the conditions to make of an operand."""
        return ((self, operand),)

    def __repr__(self) -> str:
        return f"<Operator {self.name}>"


@dataclass(frozen=True, slots=True, eq=False)
class Shorthand:
    """A name in filters for conditions with other operators, which must all hold."""

    # its name in filters
    name: str
    operand: OperandType
    kinds: FieldKinds
    # returns the conditions to make of an operand
    expand: Callable[[Any], Iterable[tuple[Operator, Any]]]


# Tests of a row. A test is compiled once per condition and runs for each row, so whatever can be
# decided from the condition alone is decided outside the lambdas.


def _is_in(ref: Ref, kind: Kind, values: Collection[Hashable]) -> Predicate:
    if len(values) == 1:
        (only,) = values
        return lambda row: row.get(ref) == only
    return lambda row: row.get(ref) in values


def _is_not_in(ref: Ref, kind: Kind, values: Collection[Hashable]) -> Predicate:
    if kind is Kind.JSON:
        # an array or object has no comparable value, but is not null: it differs from all scalars
        return lambda row: row.raw(ref) is not None and row.get(ref) not in values
    return lambda row: (value := row.get(ref)) is not None and value not in values


def _is_greater(ref: Ref, kind: Kind, bound: Any) -> Predicate:
    if kind is Kind.JSON:
        return _compares_in_json(ref, gt, bound)
    return lambda row: (value := row.get(ref)) is not None and value > bound


def _is_greater_or_equal(ref: Ref, kind: Kind, bound: Any) -> Predicate:
    if kind is Kind.JSON:
        return _compares_in_json(ref, ge, bound)
    return lambda row: (value := row.get(ref)) is not None and value >= bound


def _is_less(ref: Ref, kind: Kind, bound: Any) -> Predicate:
    if kind is Kind.JSON:
        return _compares_in_json(ref, lt, bound)
    return lambda row: (value := row.get(ref)) is not None and value < bound


def _is_less_or_equal(ref: Ref, kind: Kind, bound: Any) -> Predicate:
    if kind is Kind.JSON:
        return _compares_in_json(ref, le, bound)
    return lambda row: (value := row.get(ref)) is not None and value <= bound


def _compares_in_json(
    ref: Ref, compare: Callable[[Any, Any], bool], bound: tuple[str, Any]
) -> Predicate:
    """Compare with JSON values of the bound's type; values of other types do not match."""
    bound_type, bound_value = bound

    def compares(row: Row) -> bool:
        value = row.get(ref)
        return value is not None and value[0] == bound_type and compare(value[1], bound_value)

    return compares


def _contains(ref: Ref, kind: Kind, operand: Any) -> Predicate:
    if kind is Kind.JSON:
        return _contains_in_json(ref, *operand)
    return lambda row: (text := row.folded(ref)) is not None and operand in text


def _contains_in_json(ref: Ref, member: tuple[str, Any], folded: str | None) -> Predicate:
    """Find an equal member in an array; in a text, find the folded text."""

    def contains(row: Row) -> bool:
        value = row.raw(ref)
        if isinstance(value, list):
            return any(_is_json_scalar(each, member) for each in value)
        text = row.folded(ref)
        return folded is not None and text is not None and folded in text

    return contains


def _is_json_scalar(value: Any, tagged: tuple[str, Any]) -> bool:
    """Return whether a JSON value equals the tagged one and has its type (true is not 1)."""
    expected_type, expected = tagged
    match value:
        case bool():
            return expected_type == "boolean" and value == expected
        case int() | float():
            return expected_type == "number" and value == expected
        case str():
            return expected_type == "text" and value == expected
    return False


def _starts_with(ref: Ref, kind: Kind, operand: str) -> Predicate:
    return lambda row: (text := row.folded(ref)) is not None and text.startswith(operand)


def _ends_with(ref: Ref, kind: Kind, operand: str) -> Predicate:
    return lambda row: (text := row.folded(ref)) is not None and text.endswith(operand)


def _is_null(ref: Ref, kind: Kind, expected: bool) -> Predicate:
    return lambda row: (row.raw(ref) is None) is expected


# The table.

ANY = FieldKinds("all fields", frozenset(Kind))
COMPARABLE = FieldKinds("values that can be compared", frozenset(Kind) - {Kind.OPAQUE})
TEXTUAL = FieldKinds("text", frozenset({Kind.TEXT, Kind.ADDRESS, Kind.JSON}))

IN = Operator("in", OperandType.VALUES, COMPARABLE, _is_in, equality=True)
NOT_IN = Operator("notin", OperandType.VALUES, COMPARABLE, _is_not_in)
GT = Operator(
    "gt",
    OperandType.ORDERED_VALUE,
    COMPARABLE,
    _is_greater,
    bound=Bound(">", upper=False, strict=True),
)
GTE = Operator(
    "gte",
    OperandType.ORDERED_VALUE,
    COMPARABLE,
    _is_greater_or_equal,
    bound=Bound(">=", upper=False, strict=False),
)
LT = Operator(
    "lt",
    OperandType.ORDERED_VALUE,
    COMPARABLE,
    _is_less,
    bound=Bound("<", upper=True, strict=True),
)
LTE = Operator(
    "lte",
    OperandType.ORDERED_VALUE,
    COMPARABLE,
    _is_less_or_equal,
    bound=Bound("<=", upper=True, strict=False),
)
CONTAINS = Operator("contains", OperandType.TEXT_OR_MEMBER, TEXTUAL, _contains, substring=True)
STARTS_WITH = Operator("startswith", OperandType.TEXT, TEXTUAL, _starts_with, substring=True)
ENDS_WITH = Operator("endswith", OperandType.TEXT, TEXTUAL, _ends_with, substring=True)
IS_NULL = Operator("isnull", OperandType.BOOLEAN, ANY, _is_null)

OPERATORS: dict[str, Operator | Shorthand] = {
    entry.name: entry
    for entry in (
        Shorthand("eq", OperandType.VALUE, COMPARABLE, lambda value: [(IN, (value,))]),
        Shorthand("ne", OperandType.VALUE, COMPARABLE, lambda value: [(NOT_IN, (value,))]),
        GT,
        GTE,
        LT,
        LTE,
        CONTAINS,
        Shorthand(
            "icontains",
            OperandType.TEXT_OR_MEMBER,
            TEXTUAL,
            lambda operand: [(CONTAINS, operand)],
        ),
        STARTS_WITH,
        ENDS_WITH,
        IN,
        NOT_IN,
        IS_NULL,
        Shorthand(
            "between",
            OperandType.ORDERED_PAIR,
            COMPARABLE,
            lambda pair: [(GTE, pair[0]), (LTE, pair[1])],
        ),
    )
}
"""All operators by their name in filters, in the order in which messages list them."""
