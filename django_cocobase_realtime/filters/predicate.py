"""Compilation of filters to predicates: functions that return whether a row matches."""

from __future__ import annotations

from functools import lru_cache

from .nodes import And, Condition, InKeySet, Node, Not, Or
from .operators import IN
from .row import Predicate, Row

# bounds for nodes whose functions are cached
MAX_CACHED_PARTS = 4  # parts of a node, and values of a condition
MAX_CACHED_LENGTH = 256  # characters of the canonical text of a condition


def compile_node(node: Node) -> Predicate:
    """Return a function that returns whether a row matches the node.

    Equal nodes mostly get the same function, so that a caller can call it once for several nodes.
    """
    return _cached(node) if _is_small(node) else _compile(node)


def _is_small(node: Node) -> bool:
    """Return whether a node is worth being kept in the cache, and takes little memory there."""
    match node:
        case Condition():
            if isinstance(node.operand, tuple) and len(node.operand) > MAX_CACHED_PARTS:
                return False
            return len(node.text()) <= MAX_CACHED_LENGTH
        case InKeySet():
            return False  # the cache would keep the set
        case Not(part):
            return _is_small(part)
    return len(node.parts) <= MAX_CACHED_PARTS and all(map(_is_small, node.parts))


def _compile(node: Node) -> Predicate:
    match node:
        case Condition():
            return node.operator.compile(node.ref, node.kind, node.operand)
        case InKeySet(ref, _, key_set):
            keys = key_set.keys
            return lambda row: row.key(ref) in keys
        case And(()):
            return lambda row: True
        case Or(()):
            return lambda row: False
        case And(parts):
            return _all([compile_node(part) for part in _cheapest_first(parts)])
        case Or(parts):
            return _any([compile_node(part) for part in _cheapest_first(parts)])
        case Not(part):
            inner = compile_node(part)
            return lambda row: not inner(row)


def _cheapest_first(parts: tuple[Node, ...]) -> list[Node]:
    return sorted(parts, key=lambda part: not _is_equality(part))


def _is_equality(node: Node) -> bool:
    return isinstance(node, InKeySet) or (isinstance(node, Condition) and node.operator is IN)


def _all(tests: list[Predicate]) -> Predicate:
    if len(tests) == 2:
        first, second = tests
        return lambda row: first(row) and second(row)

    def all_match(row: Row) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would take more time than the tests
            if not test(row):
                return False
        return True

    return all_match


def _any(tests: list[Predicate]) -> Predicate:
    def any_matches(row: Row) -> bool:
        for test in tests:  # noqa: SIM110
            if test(row):
                return True
        return False

    return any_matches


_cached = lru_cache(maxsize=1024)(_compile)
