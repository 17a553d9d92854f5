"""The tree of conditions that a filter is parsed to.

Trees are normalised while they are built, by `all_of`, `any_of` and `negate`: nested nodes of one
type are flattened, and conditions with ``in`` on one field are merged. Three backends evaluate a
tree and agree on every value: the predicate on a row (``predicate``), Django's ORM (``orm``) and
the index over all filters (``index``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from .operators import IN, Operator
from .schema import Kind, Ref

Values = tuple[Hashable] | frozenset[Hashable]
"""A tuple if there is one value, which is the common case: a set takes four times the memory."""


def values_of(values: Collection[Hashable]) -> Values:
    """Return the `Values`; equal ones for equal values in any order."""
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
    # the kind of the value; `Kind.JSON` for all paths into JSON
    kind: Kind
    operator: Operator
    # what it is compared with; its type depends on the operator, see `OperandType`
    operand: Any

    def text(self) -> str:
        """Return the canonical text, which is equal for equal conditions on all servers."""
        listed = self.operator.operand == "values"
        operand = sorted(map(repr, self.operand)) if listed else repr(self.operand)
        return f"{'.'.join(map(repr, self.ref))} {self.operator.name} {operand}"


@dataclass(frozen=True, slots=True)
class And:
    """A conjunction. Without parts, it matches every row."""

    parts: tuple[Node, ...] = ()

    def text(self) -> str:
        """Return the canonical text, which does not depend on the order of the parts."""
        return f"all({', '.join(sorted(part.text() for part in self.parts))})"


@dataclass(frozen=True, slots=True)
class Or:
    """A disjunction. Without parts, it matches no row."""

    parts: tuple[Node, ...] = ()

    def text(self) -> str:
        """Return the canonical text, which does not depend on the order of the parts."""
        return f"any({', '.join(sorted(part.text() for part in self.parts))})"


@dataclass(frozen=True, slots=True)
class Not:
    """A negation. It is two-valued, unlike SQL's: ``not(age > 18)`` matches if age is null."""

    part: Node

    def text(self) -> str:
        """Return the canonical text."""
        return f"not({self.part.text()})"


Node = Condition | And | Or | Not
ALWAYS = And()
NEVER = Or()


def all_of(nodes: Iterable[Node]) -> Node:
    """Return the conjunction of nodes. The values of ``in`` on one field are intersected."""
    return _join(nodes, And, NEVER, frozenset.intersection)


def any_of(nodes: Iterable[Node]) -> Node:
    """Return the disjunction of nodes. The values of ``in`` on one field are united."""
    return _join(nodes, Or, ALWAYS, frozenset.union)


def _join(
    nodes: Iterable[Node],
    joined_type: type[And | Or],
    dominant: Node,
    merge: Callable[[frozenset[Any], frozenset[Any]], frozenset[Any]],
) -> Node:
    """Join nodes to one of ``joined_type``.

    ``dominant`` is the node that decides the result alone: NEVER for And, ALWAYS for Or. ``merge``
    makes one set of values of two that are compared with the same field.
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
            if part != NEVER:  # only in Or: it adds no rows there
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
