"""Links between the tables of a query, and the paths along which a change finds its queries.

A query for the projects of one user reads, for example, the tables project, organization and
membership, and only memberships are compared with the user. A new project matters to the users
whose memberships it is linked with, and the path to them is project, organization, membership.
Links are conditions without which the query returns nothing: inner joins, and sub-queries that
must hold.

A path omits all conditions on its way, and of the changed row it needs nothing but the image. So it
finds all queries that the change touches, even if other rows have changed or are gone by now: of
all rows that a result needed and that have changed, the one that is nearest to the end of the path
still has its path, and its own change finds the query.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .conditions import Alternatives

# an alias in a query: the number of the query within the outermost one, and the alias
Node: TypeAlias = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Hop:
    """A step from one table to the next: rows with equal values in one column of each."""

    # the column of the table that the step leads from, a model field
    source: Any
    # the column of the table that the step leads to, a model field
    target: Any
    # name of the table that the step leads to
    table: str


@dataclass(frozen=True, slots=True)
class Path:
    """The way from a changed row to rows with conditions. Without hops it is the row itself."""

    hops: tuple[Hop, ...]
    # conditions of the rows at the end
    alternatives: Alternatives


@dataclass(slots=True)
class Links:
    """The links of a query, and the conditions of its nodes."""

    # links that hold whenever a row of the first node matters
    certain: dict[Node, list[tuple[Hop, Node]]] = field(default_factory=dict)
    # links of left joins, from the outer to the joined table; they may have no row
    optional: dict[Node, list[tuple[Hop, Node]]] = field(default_factory=dict)
    # conditions that the rows of a node must meet, with their rank
    conditions: dict[Node, tuple[int, Alternatives]] = field(default_factory=dict)
    # by the number of a query: nodes with conditions, one of which must hold
    either: dict[int, list[tuple[Node, Alternatives]]] = field(default_factory=dict)

    def add(self, node: Node, hop: Hop, other: Node, *, optional: bool = False) -> None:
        """Add a link, along which a path may lead from ``node`` to ``other``."""
        (self.optional if optional else self.certain).setdefault(node, []).append((hop, other))

    def paths(self, node: Node) -> tuple[Path, ...]:
        """Return paths from a node. A change matters only to queries at the end of one of them.

        Without paths, a change may matter to all queries.
        """
        end = self.best_end(node)
        if end is not None:
            hops = self._reach(node, optional=False)
            return (Path(_shortened(hops[end]), self.conditions[end][1]),)
        either = self.either.get(node[0], [])
        hops = self._reach(node, optional=True)
        if any(end not in hops for end, _ in either):
            return ()
        return tuple(Path(_shortened(hops[end]), alternatives) for end, alternatives in either)

    def best_end(self, node: Node) -> Node | None:
        """Return the node with conditions that distinguish most queries, of those in reach.

        All nodes on the way to it choose the same, which the argument above requires.
        """
        ends = [end for end in self._reach(node, optional=False) if end in self.conditions]
        return max(ends, key=lambda end: (self.conditions[end][0], end), default=None)

    def _reach(self, start: Node, *, optional: bool) -> dict[Node, tuple[Hop, ...]]:
        """Return the nodes that can be reached, each with the shortest way."""
        reached: dict[Node, tuple[Hop, ...]] = {start: ()}
        waiting = deque([start])
        while waiting:
            node = waiting.popleft()
            links = self.certain.get(node, [])
            if optional:
                links = links + self.optional.get(node, [])
            for hop, other in links:
                if other not in reached:
                    reached[other] = (*reached[node], hop)
                    waiting.append(other)
        return reached


def _shortened(hops: tuple[Hop, ...]) -> tuple[Hop, ...]:
    """Return hops without tables that are entered and left by the same column."""
    short: list[Hop] = []
    for hop in hops:
        if short and short[-1].target == hop.source:
            hop = Hop(short.pop().source, hop.target, hop.table)
        short.append(hop)
    return tuple(short)
