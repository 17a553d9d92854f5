"""Estimates of what a filter costs per event, by which clients' filters are limited.

An estimate is in microseconds of the event loop, for a row that makes the filter as expensive as
possible: the index has found the filter, all conditions must be tested, and texts have their
maximal length, or `ASSUMED_LENGTH` if the field has none.
"""

from __future__ import annotations

from .filter import Filter
from .nodes import Condition, InKeySet, Node, Not
from .operators import CONTAINS
from .schema import Schema

ASSUMED_LENGTH = 16_384  # characters of a text without a maximal length
CONDITION = 0.2  # a test of a column's value
PATH = 0.5  # reading a value in JSON, with the lookup in the index
PATH_PART = 0.1  # each further key of the path to it
SCAN = 0.002  # per character of a text that is searched
# If a text to find consists of few characters, many of its parts may occur in the text that is
# searched. Python then compares up to about a hundred characters at each position.
REPETITIVE = 4  # length by number of different characters, from which on this is assumed
REPETITIVE_SCAN = 0.0004  # per character of the text that is searched and of the one to find
MAX_COMPARED = 100  # characters to find; for longer texts, Python uses another algorithm


def estimate_cost(filter: Filter, schema: Schema) -> float:
    """Return the estimated microseconds of a filter for one event."""
    return _node_cost(filter.root, schema)


def _node_cost(node: Node, schema: Schema) -> float:
    match node:
        case Condition():
            return _condition_cost(node, schema)
        case InKeySet():
            return CONDITION
        case Not(part):
            return _node_cost(part, schema)
    return sum(_node_cost(part, schema) for part in node.parts)


def _condition_cost(condition: Condition, schema: Schema) -> float:
    ref = condition.ref
    is_json = len(ref) > 1 or schema[ref[0]].kind is condition.kind.JSON
    cost = PATH + PATH_PART * len(ref) if is_json else CONDITION
    if condition.operator is CONTAINS:
        # an operand for JSON is a pair of a member of an array and of a text, or None
        sought = condition.operand[1] if is_json else condition.operand
        if sought:
            length = schema[ref[0]].max_length
            cost += _search_cost(sought, ASSUMED_LENGTH if length is None else length)
    return cost


def _search_cost(sought: str, length: int) -> float:
    if len(sought) <= REPETITIVE * len(set(sought)):
        return SCAN * length
    return max(SCAN, REPETITIVE_SCAN * min(len(sought), MAX_COMPARED)) * length
