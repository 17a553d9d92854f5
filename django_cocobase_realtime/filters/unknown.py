"""Conditions whose value is None, as in ``{"owner": None}`` for an identity without a user.

It is unknown which rows such a condition would match. A filter therefore matches a row only if it
does so whatever their result is: neither ``{"owner": None}`` nor ``{"$not": {"owner": None}}``
matches a row, but ``{"$or": [{"owner": None}, {"public": True}]}`` matches public ones. This is
SQL's logic with three values, but only for null in filters: null in a row is not unknown.
"""

from __future__ import annotations

from .nodes import NEVER, And, Condition, Node, Not, Or, all_of, any_of, negate
from .operators import FieldKinds, Operator
from .schema import Kind

_OPERATOR = Operator(
    "unknown", "value", FieldKinds("no fields", frozenset()), lambda ref, kind, value: _no_row
)
# the condition whose result is unknown. It is a part of trees that are parsed or combined, but not
# of those that are evaluated
UNKNOWN = Condition((), Kind.OPAQUE, _OPERATOR, None)


def _no_row(row: object) -> bool:
    return False


def resolve(node: Node, *, negated: bool = False) -> Node:
    """Return a node without `UNKNOWN` for the rows that match whatever the unknown results are.

    With ``negated``, these are the rows that do not match, whatever the unknown results are.
    """
    if not has_unknown(node):
        return negate(node) if negated else node
    match node:
        case Not(part):
            return resolve(part, negated=not negated)
        case And(parts):
            return (any_of if negated else all_of)(
                [resolve(part, negated=negated) for part in parts]
            )
        case Or(parts):
            return (all_of if negated else any_of)(
                [resolve(part, negated=negated) for part in parts]
            )
        case _:
            return NEVER


def has_unknown(node: Node) -> bool:
    """Return whether a node has a part whose result is unknown."""
    match node:
        case Condition():
            return node.operator is _OPERATOR
        case Not(part):
            return has_unknown(part)
        case And(parts) | Or(parts):
            return any(map(has_unknown, parts))
    return False
