"""Nodes of the tree that a filter is parsed to: conditions, and how they are combined.

The functions `all_of`, `any_of` and `negate` build normalized trees: nested nodes of the same type
are flattened, and conditions with ``in`` on one field are merged. Three backends evaluate a tree,
with the same results: a function of a row (``predicate``), Django's ORM (``orm``), and the index
over many filters (``index``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from .key_set import KeySet
from .operators import IN, Operator
from .schema import Kind, Ref, key_of

# returns the text of a key set in the text of a filter
KeySetText = Callable[[KeySet], str]


def by_serial(key_set: KeySet) -> str:
    """Return a text by which a key set differs from all others of this process."""
    return f"#{key_set.serial}"


# the operand of ``in``: different values in any order. Not a set, see `key_of`
Values = tuple[Hashable, ...]


def values_of(kind: Kind, values: Iterable[Hashable]) -> Values:
    """Return values of a kind as an operand of ``in``, without duplicates."""
    return tuple({key_of(kind, value): value for value in values}.values())


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """A comparison of one value in a row with an operand."""

    # the value that is compared
    ref: Ref
    # kind of the value; `Kind.JSON` for all paths into JSON
    kind: Kind
    operator: Operator
    # the operand, whose type depends on the operator, see `OperandType`
    operand: Any

    def text(self, key_set_text: KeySetText = by_serial) -> str:
        """Return the canonical text, which is the same for equal conditions on all servers."""
        listed = self.operator.operand == "values"
        operand = sorted(map(repr, self.operand)) if listed else repr(self.operand)
        return f"{'.'.join(map(repr, self.ref))} {self.operator.name} {operand}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Condition):
            return NotImplemented
        return self.kind is other.kind and self.text() == other.text()

    def __hash__(self) -> int:
        return hash(self.text())  # not of the operand, whose hash clients can predict


@dataclass(frozen=True, slots=True)
class InKeySet:
    """A condition that a value in a row is one of a key set. It is equal only for the same set."""

    # the value that is compared
    ref: Ref
    # kind of the value
    kind: Kind
    # the set, whose keys change
    key_set: KeySet

    def text(self, key_set_text: KeySetText = by_serial) -> str:
        """Return the canonical text, with the key set as ``key_set_text`` returns it."""
        return f"{'.'.join(map(repr, self.ref))} in keys {key_set_text(self.key_set)}"


@dataclass(frozen=True, slots=True)
class And:
    """A conjunction: all parts must match. Without parts, it matches every row."""

    parts: tuple[Node, ...] = ()

    def text(self, key_set_text: KeySetText = by_serial) -> str:
        """Return the canonical text, which does not depend on the order of the parts."""
        return f"all({_parts_text(self.parts, key_set_text)})"


@dataclass(frozen=True, slots=True)
class Or:
    """A disjunction: at least one part must match. Without parts, it matches no row."""

    parts: tuple[Node, ...] = ()

    def text(self, key_set_text: KeySetText = by_serial) -> str:
        """Return the canonical text, which does not depend on the order of the parts."""
        return f"any({_parts_text(self.parts, key_set_text)})"


@dataclass(frozen=True, slots=True)
class Not:
    """A negation. Unlike SQL's, it has two values: ``not(age > 18)`` matches if age is null."""

    part: Node

    def text(self, key_set_text: KeySetText = by_serial) -> str:
        """Return the canonical text of the negated part, in ``not()``."""
        return f"not({self.part.text(key_set_text)})"


def _parts_text(parts: tuple[Node, ...], key_set_text: KeySetText) -> str:
    return ", ".join(sorted(part.text(key_set_text) for part in parts))


Node = Condition | InKeySet | And | Or | Not
# matches every row
ALWAYS = And()
# matches no row
NEVER = Or()


def all_of(nodes: Iterable[Node]) -> Node:
    """Return the conjunction of nodes. For several ``in`` on one field, intersect the values."""
    return _join(nodes, And, NEVER)


def any_of(nodes: Iterable[Node]) -> Node:
    """Return the disjunction of nodes. For several ``in`` on one field, unite the values."""
    return _join(nodes, Or, ALWAYS)


def _join(nodes: Iterable[Node], joined_type: type[And | Or], dominant: Node) -> Node:
    """Join nodes to one of ``joined_type``.

    ``dominant`` is the node that makes the result the same whatever the other parts are: NEVER for
    And, ALWAYS for Or.
    """
    others: dict[Node, None] = {}
    equalities: dict[Ref, list[Condition]] = {}
    for node in nodes:
        for part in node.parts if isinstance(node, joined_type) else (node,):
            if isinstance(part, Condition) and part.operator is IN:
                if part.operand:
                    equalities.setdefault(part.ref, []).append(part)
                    continue
                part = NEVER
            if part == dominant:
                return dominant
            if part != NEVER:  # in And, NEVER is dominant; in Or, it adds no rows
                others[part] = None
    merge = _intersection if joined_type is And else _union
    merged = [
        conditions[0] if len(conditions) == 1 else merge(conditions)
        for conditions in equalities.values()
    ]
    if not all(condition.operand for condition in merged):
        return NEVER  # no value is in all lists
    parts = [*merged, *others]
    return parts[0] if len(parts) == 1 else joined_type(tuple(parts))


def _union(conditions: list[Condition]) -> Condition:
    """Return one ``in`` with the values of several on the same field."""
    ref, kind = conditions[0].ref, conditions[0].kind
    values = chain.from_iterable(condition.operand for condition in conditions)
    return Condition(ref, kind, IN, values_of(kind, values))


def _intersection(conditions: list[Condition]) -> Condition:
    """Return one ``in`` with the values that several on the same field have in common."""
    first, *rest = conditions
    values = {key_of(first.kind, value): value for value in first.operand}
    for condition in rest:
        keys = {key_of(first.kind, value) for value in condition.operand}
        values = {key: value for key, value in values.items() if key in keys}
    return Condition(first.ref, first.kind, IN, tuple(values.values()))


def negate(node: Node) -> Node:
    """Return the negation of a node."""
    if node == ALWAYS:
        return NEVER
    if node == NEVER:
        return ALWAYS
    return node.part if isinstance(node, Not) else Not(node)


def key_sets_in(node: Node) -> Iterator[KeySet]:
    """Yield the key sets in a node. A set that several conditions contain comes several times."""
    match node:
        case InKeySet():
            yield node.key_set
        case And(parts) | Or(parts):
            for part in parts:
                yield from key_sets_in(part)
        case Not(part):
            yield from key_sets_in(part)


def with_key_sets(node: Node, replacement: Callable[[KeySet], KeySet]) -> Node:
    """Return the node with other key sets."""
    match node:
        case InKeySet():
            return InKeySet(node.ref, node.kind, replacement(node.key_set))
        case And(parts) | Or(parts):
            return type(node)(tuple(with_key_sets(part, replacement) for part in parts))
        case Not(part):
            return Not(with_key_sets(part, replacement))
    return node
