"""The operators of filters, described in one table for the parser, the predicate and the index.

Each condition has an `Operator`. A `Shorthand` is a name that stands for conditions with other
operators: ``eq`` for ``in`` with one value, ``between`` for ``gte`` and ``lte``.

To add an operator, describe it in the table at the end of this module, and its SQL in ``orm.SQL``.
For example, this is an operator ``word`` that finds a whole word in a text. The index may store
its filters by substring::

    WORD = Operator("word", "text", TEXTUAL, _has_word, substring=True)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, Literal

from .row import Predicate, Row
from .schema import KEYS, Kind, Ref, key_of, number_key

# The kinds of values that operators take from a client, with the operand that the parser makes:
#
# - value: one value, such as 18 or "18" for an integer field. The operand is the coerced value.
# - ordered_value: the same, except booleans in JSON, which have no order.
# - ordered_pair: two ordered values, as [18, 65] or "18,65". The operand is a pair.
# - values: any number of values, as [1, 2] or "1,2". The operand is `nodes.Values`.
# - text: a text. The operand is the text without its case, see `schema.fold`.
# - text_or_member: the same; for a JSON field, a text, number or boolean. The operand for a JSON
#   field is a pair (tagged, folded): (("text", "A"), "a") for "A", (("number", 5), None) for 5.
# - boolean: true, false, 1, 0, or one of these as a text. The operand is a bool.
OperandType = Literal[
    "value", "ordered_value", "ordered_pair", "values", "text", "text_or_member", "boolean"
]


@dataclass(frozen=True, slots=True)
class FieldKinds:
    """The kinds of fields to which an operator can be applied."""

    # used in error messages, such as "contains is for text"
    label: str
    kinds: frozenset[Kind]

    def __contains__(self, kind: Kind) -> bool:
        return kind in self.kinds


@dataclass(frozen=True, slots=True)
class Bound:
    """How an operator that compares limits the values that match."""

    # the operator in SQL
    sign: Literal[">", ">=", "<", "<="]
    # whether the operand is an upper bound, and not a lower one
    upper: bool
    # whether the operand itself does not match
    strict: bool


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """A way of comparing a value with an operand.

    A value that is null or missing matches no operator except ``isnull``.
    """

    # name in filters, and in the canonical text of conditions
    name: str
    # kind of value that it takes from a client
    operand: OperandType
    # kinds of fields to which it can be applied
    kinds: FieldKinds
    # returns the function that tests a row, given a condition's ref, kind and operand
    compile: Callable[[Ref, Kind, Any], Predicate]
    # for the index: whether a matching value is always one of the operand's values
    equality: bool = False
    # for the index: how the operand limits matching values
    bound: Bound | None = None
    # for the index: whether a matching text, without its case, always contains the operand
    substring: bool = False

    def expand(self, operand: Any) -> Iterable[tuple[Operator, Any]]:
        """Return the operators and operands of the conditions for an operand: only this one."""
        return ((self, operand),)

    def __repr__(self) -> str:
        return f"<Operator {self.name}>"


@dataclass(frozen=True, slots=True, eq=False)
class Shorthand:
    """A name in filters that stands for conditions with other operators, which must all match."""

    # name in filters
    name: str
    # kind of value that it takes from a client
    operand: OperandType
    # kinds of fields to which it can be applied
    kinds: FieldKinds
    # returns the operators and operands of the conditions for an operand
    expand: Callable[[Any], Iterable[tuple[Operator, Any]]]


# Functions that return a test of a row. They are called once per condition, and the test for each
# row. Everything that does not depend on the row is therefore decided outside the test.


def _is_in(ref: Ref, kind: Kind, values: Collection[Hashable]) -> Predicate:
    if len(values) == 1:
        (only,) = values
        return lambda row: row.get(ref) == only
    keys = frozenset(key_of(kind, value) for value in values)
    return lambda row: row.key(ref) in keys


def _is_not_in(ref: Ref, kind: Kind, values: Collection[Hashable]) -> Predicate:
    keys = frozenset(key_of(kind, value) for value in values)
    if kind is Kind.JSON:
        # `row.key` returns None for arrays and objects; they differ from all values that are given
        return lambda row: row.raw(ref) is not None and row.key(ref) not in keys
    if len(values) == 1:
        (only,) = values
        return lambda row: (value := row.get(ref)) is not None and value != only
    if kind not in KEYS:  # the values are their own keys, and `row.get` takes less time
        return lambda row: (value := row.get(ref)) is not None and value not in keys
    return lambda row: (key := row.key(ref)) is not None and key not in keys


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
    """Return a test for JSON, in which values of another type than the bound do not match."""
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
    """Return a test for JSON: an array must have the member, or a text contain the folded text."""
    json_type, sought = member
    if json_type == "number":
        sought = number_key(sought)

    def contains(row: Row) -> bool:
        members = row.members(ref, json_type)
        if members is not None:
            return sought in members
        text = row.folded(ref)
        return folded is not None and text is not None and folded in text

    return contains


def _starts_with(ref: Ref, kind: Kind, operand: str) -> Predicate:
    return lambda row: (text := row.folded(ref)) is not None and text.startswith(operand)


def _ends_with(ref: Ref, kind: Kind, operand: str) -> Predicate:
    return lambda row: (text := row.folded(ref)) is not None and text.endswith(operand)


def _is_null(ref: Ref, kind: Kind, expected: bool) -> Predicate:
    return lambda row: (row.raw(ref) is None) is expected


# the table of operators

ANY = FieldKinds("all fields", frozenset(Kind))
COMPARABLE = FieldKinds("values that can be compared", frozenset(Kind) - {Kind.OPAQUE})
TEXTUAL = FieldKinds("text", frozenset({Kind.TEXT, Kind.ADDRESS, Kind.JSON}))

ABOVE = Bound(">", upper=False, strict=True)
AT_LEAST = Bound(">=", upper=False, strict=False)
BELOW = Bound("<", upper=True, strict=True)
AT_MOST = Bound("<=", upper=True, strict=False)

IN = Operator("in", "values", COMPARABLE, _is_in, equality=True)
NOT_IN = Operator("notin", "values", COMPARABLE, _is_not_in)
GT = Operator("gt", "ordered_value", COMPARABLE, _is_greater, bound=ABOVE)
GTE = Operator("gte", "ordered_value", COMPARABLE, _is_greater_or_equal, bound=AT_LEAST)
LT = Operator("lt", "ordered_value", COMPARABLE, _is_less, bound=BELOW)
LTE = Operator("lte", "ordered_value", COMPARABLE, _is_less_or_equal, bound=AT_MOST)
CONTAINS = Operator("contains", "text_or_member", TEXTUAL, _contains, substring=True)
STARTS_WITH = Operator("startswith", "text", TEXTUAL, _starts_with, substring=True)
ENDS_WITH = Operator("endswith", "text", TEXTUAL, _ends_with, substring=True)
IS_NULL = Operator("isnull", "boolean", ANY, _is_null)

EQ = Shorthand("eq", "value", COMPARABLE, lambda value: [(IN, (value,))])
NE = Shorthand("ne", "value", COMPARABLE, lambda value: [(NOT_IN, (value,))])
ICONTAINS = Shorthand("icontains", "text_or_member", TEXTUAL, CONTAINS.expand)
BETWEEN = Shorthand(
    "between", "ordered_pair", COMPARABLE, lambda pair: [(GTE, pair[0]), (LTE, pair[1])]
)

# all operators by their name in filters, in the order in which error messages list them
OPERATORS: dict[str, Operator | Shorthand] = {
    entry.name: entry
    for entry in (
        *(EQ, NE, GT, GTE, LT, LTE),
        *(CONTAINS, ICONTAINS, STARTS_WITH, ENDS_WITH),
        *(IN, NOT_IN, IS_NULL, BETWEEN),
    )
}
