"""Nodes of the tree that a filter is parsed to: conditions, and how they are combined.

The functions `all_of`, `any_of` and `negate` build normalized trees: nested nodes of the same type
are flattened, and conditions with ``in`` on one field are merged. Three backends evaluate a tree,
with the same results: a function of a row (``predicate``), Django's ORM (``orm``), and the index
over many filters (``index``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from .operators import IN, Operator
from .schema import Kind, Ref

# the operand of ``in``. A single value is in a tuple, which takes a quarter of a set's memory
Values = tuple[Hashable] | frozenset[Hashable]


def values_of(values: Collection[Hashable]) -> Values:
    """Return values as an operand of ``in``, without duplicates and independent of their order."""
    distinct = frozenset(values)
    if len(distinct) == 1:
        (only,) = distinct
        return (only,)
    return distinct


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of one value in a row with an operand."""

    # the value that is compared
    ref: Ref
    # kind of the value; `Kind.JSON` for all paths into JSON
    kind: Kind
    operator: Operator
    # the operand, whose type depends on the operator, see `OperandType`
    operand: Any

    def text(self) -> str:
        """Return the canonical text, which is the same for equal conditions on all servers."""
        listed = self.operator.operand == "values"
        operand = sorted(map(repr, self.operand)) if listed else repr(self.operand)
        return f"{'.'.join(map(repr, self.ref))} {self.operator.name} {operand}"


@dataclass(frozen=True, slots=True)
class And:
    """A conjunction: all parts must match. Without parts, it matches every row."""

    parts: tuple[Node, ...] = ()

    def text(self) -> str:
        """Return the canonical text, which does not depend on the order of the parts."""
        return f"all({', '.join(sorted(part.text() for part in self.parts))})"


@dataclass(frozen=True, slots=True)
class Or:
    """A disjunction: at least one part must match. Without parts, it matches no row."""

    parts: tuple[Node, ...] = ()

    def text(self) -> str:
        """Return the canonical text, which does not depend on the order of the parts."""
        return f"any({', '.join(sorted(part.text() for part in self.parts))})"


@dataclass(frozen=True, slots=True)
class Not:
    """A negation. Unlike SQL's, it has two values: ``not(age > 18)`` matches if age is null."""

    part: Node

    def text(self) -> str:
        """Return the canonical text of the negated part, in ``not()``."""
        return f"not({self.part.text()})"


Node = Condition | And | Or | Not
# matches every row
ALWAYS = And()
# matches no row
NEVER = Or()


def all_of(nodes: Iterable[Node]) -> Node:
    """Return the conjunction of nodes. For several ``in`` on one field, intersect the values."""
    return _join(nodes, And, NEVER, frozenset.intersection)


def any_of(nodes: Iterable[Node]) -> Node:
    """Return the disjunction of nodes. For several ``in`` on one field, unite the values."""
    return _join(nodes, Or, ALWAYS, frozenset.union)


def _join(
    nodes: Iterable[Node],
    joined_type: type[And | Or],
    dominant: Node,
    merge: Callable[[frozenset[Any], frozenset[Any]], frozenset[Any]],
) -> Node:
    """Join nodes to one of ``joined_type``.

    ``dominant`` is the node that makes the result the same whatever the other parts are: NEVER for
    And, ALWAYS for Or. ``merge`` combines the values of two ``in`` on the same field.
    """
    others: dict[Node, None] = {}
    equalities: dict[Ref, Condition] = {}
    for node in nodes:
        for part in node.parts if isinstance(node, joined_type) else (node,):
            if isinstance(part, Condition) and part.operator is IN:
                earlier = equalities.get(part.ref)
                if earlier is not None:
                    values = merge(frozenset(earlier.operand), frozenset(part.operand))
                    part = Condition(part.ref, part.kind, IN, values_of(values))
                if part.operand:
                    equalities[part.ref] = part
                    continue
                part = NEVER
            if part == dominant:
                return dominant
            if part != NEVER:  # in And, NEVER is dominant; in Or, it adds no rows
                others[part] = None
    parts = [*equalities.values(), *others]
    return parts[0] if len(parts) == 1 else joined_type(tuple(parts))


def negate(node: Node) -> Node:
    """Return the negation of a node."""
    if node == ALWAYS:
        return NEVER
    if node == NEVER:
        return ALWAYS
    return node.part if isinstance(node, Not) else Not(node)
