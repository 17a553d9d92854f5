"""A parsed filter: a tree of conditions, normalised, the same for the same meaning.

The tree has three faces that agree value by value: the predicate (``predicate``), the ORM's ``Q``
(``orm``) and the places in the equality index (``index``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .row import Row
from .schema import Kind, Ref


class Op(Enum):
    """What a condition asks. ``eq`` is IN of one value, ``ne`` NOT_IN, ``between`` two of these."""

    IN = "in"
    NOT_IN = "notin"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    CONTAINS = "contains"
    STARTS_WITH = "startswith"
    ENDS_WITH = "endswith"
    IS_NULL = "isnull"


Values = tuple[Hashable] | frozenset[Hashable]
"""One value, or several (or none): most conditions have one, and a set is four times as large."""


def values_of(found: Collection[Hashable]) -> Values:
    """The same for the same values."""
    values = frozenset(found)
    if len(values) == 1:
        (only,) = values
        return (only,)
    return values


@dataclass(frozen=True, slots=True)
class Condition:
    """One question about one value.

    ``operand`` is `Values` for IN and NOT_IN, a bool for IS_NULL, folded text for the
    text operators (a tagged JSON value for CONTAINS on JSON), else one coerced value. A null or
    missing value answers every question but IS_NULL with no.
    """

    ref: Ref
    kind: Kind
    op: Op
    operand: Any

    def text(self) -> str:
        """The same for the same condition, on every server."""
        listed = self.op in (Op.IN, Op.NOT_IN)
        shown = sorted(map(repr, self.operand)) if listed else repr(self.operand)
        return f"{'.'.join(map(repr, self.ref))} {self.op.value} {shown}"


@dataclass(frozen=True, slots=True)
class And:
    """Every part holds; without parts, always."""

    parts: tuple[Node, ...] = ()

    def text(self) -> str:
        """The same whatever the order of its parts."""
        return f"all({', '.join(sorted(part.text() for part in self.parts))})"


@dataclass(frozen=True, slots=True)
class Or:
    """Some part holds; without parts, never."""

    parts: tuple[Node, ...] = ()

    def text(self) -> str:
        """The same whatever the order of its parts."""
        return f"any({', '.join(sorted(part.text() for part in self.parts))})"


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold: two-valued, so a null value is among what it matches."""

    part: Node

    def text(self) -> str:
        """The same for the same part."""
        return f"not({self.part.text()})"


Node = Condition | And | Or | Not
ALWAYS = And()
NEVER = Or()


def all_of(nodes: Iterable[Node]) -> Node:
    """Their conjunction, flattened; conditions of one field's IN meet."""
    return _join(nodes, And, NEVER, frozenset.intersection)


def any_of(nodes: Iterable[Node]) -> Node:
    """Their disjunction, flattened; conditions of one field's IN join."""
    return _join(nodes, Or, ALWAYS, frozenset.union)


def _join(
    nodes: Iterable[Node],
    kind: type[And | Or],
    end: Node,
    meet: Callable[[frozenset[Any], frozenset[Any]], frozenset[Any]],
) -> Node:
    """``end`` decides alone; ``meet`` makes one IN of two of the same field."""
    parts: dict[Node, None] = {}
    sets: dict[Ref, Condition] = {}
    for node in nodes:
        for part in node.parts if isinstance(node, kind) else (node,):
            if isinstance(part, Condition) and part.op is Op.IN:
                held = sets.get(part.ref)
                if held is not None:
                    values = values_of(meet(frozenset(held.operand), frozenset(part.operand)))
                    part = Condition(part.ref, part.kind, Op.IN, values)
                if part.operand:
                    sets[part.ref] = part
                    continue
                part = NEVER
            if part == end:
                return end
            if part != NEVER:  # among what is joined by "or", it says nothing
                parts[part] = None
    found = [*sets.values(), *parts]
    return found[0] if len(found) == 1 else kind(tuple(found))


def negate(node: Node) -> Node:
    """Its two-valued negation."""
    if node == ALWAYS:
        return NEVER
    if node == NEVER:
        return ALWAYS
    return node.part if isinstance(node, Not) else Not(node)


Place = tuple[Ref, Hashable]
"""An equality: this value is there."""


class Filter:
    """A set of rows. Equal filters are of one mind: same ``canonical``, same hash."""

    __slots__ = ("_canonical", "_predicate", "root")

    def __init__(self, root: Node = ALWAYS) -> None:
        self.root = root
        self._canonical = root.text()
        self._predicate: Callable[[Row], bool] | None = None

    @property
    def matches(self) -> Callable[[Row], bool]:
        """Whether a row is in the set: compiled at first use, since an index may need it never."""
        if self._predicate is None:
            from .predicate import compile_node

            self._predicate = compile_node(self.root)
        return self._predicate

    @classmethod
    def everything(cls) -> Filter:
        """Matches every row."""
        return cls(ALWAYS)

    @classmethod
    def nothing(cls) -> Filter:
        """Matches no row."""
        return cls(NEVER)

    def canonical(self) -> str:
        """The same text for the same filter, on every server."""
        return self._canonical

    def __and__(self, other: Filter) -> Filter:
        """Matches what both match."""
        return Filter(all_of((self.root, other.root)))

    def __or__(self, other: Filter) -> Filter:
        """Matches what either matches."""
        return Filter(any_of((self.root, other.root)))

    def __invert__(self) -> Filter:
        """Matches what this one does not."""
        return Filter(negate(self.root))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self._canonical == other._canonical

    def __hash__(self) -> int:
        return hash(self._canonical)

    def __repr__(self) -> str:
        return f"<Filter {self._canonical}>"
