"""The clauses of a filter, each with the value of a row and whether it matches.

Each clause is evaluated by the function that delivery evaluates it with. Values of fields that look
secret, and of fields that the project encrypts, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Any

from django.db.models import Model, QuerySet

from ..declarations.collection import Collection
from ..declarations.image_fields import is_secret_looking
from ..filters import Filter, KeySet, MakeKeySet, Ref, Row
from ..filters.nodes import And, Condition, InKeySet, Node, Not, Or
from ..filters.operators import IN, NOT_IN
from ..filters.schema import Kind
from .findings import Finding

MAX_TEXT = 80  # characters of a value
MAX_VALUES = 10  # values of a list
HIDDEN = "a value that is not shown"

# how operators other than ``in`` and ``notin`` are written
_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Clauses:
    """Describes the filters of one collection."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        # names of the models whose rows the querysets of key sets return
        self._models: dict[KeySet, str] = {}

    def noting(self, make: MakeKeySet) -> MakeKeySet:
        """Return a function that makes the same key sets, and notes which querysets they have."""

        def make_and_note(field: str, queryset: QuerySet[Any]) -> KeySet:
            key_set = make(field, queryset)
            self._models[key_set] = queryset.model.__name__
            return key_set

        return make_and_note

    def findings(self, filter: Filter, row: Row) -> tuple[Finding, ...]:
        """Return a finding for each clause that a row must match."""
        root = filter.root
        parts = root.parts if isinstance(root, And) else (root,)
        return tuple(self._finding(part, row) for part in parts)

    def _finding(self, node: Node, row: Row) -> Finding:
        # by `Filter`, so that a clause that cannot be evaluated does not match, as in delivery
        matches = Filter(node).matches(row)
        match node:
            case Condition():
                return Finding(matches, f"{self._condition(node)}: {self._value(node.ref, row)}")
            case InKeySet():
                return Finding(matches, self._membership(node, row, matches=matches))
            case And(()):
                return Finding(True, "every row matches")
            case Or(()):
                return Finding(False, "no row matches")
            case Not(part):
                text = "this clause must not match, and does not"
                if not matches:
                    text = "this clause must not match, but does"
                inner = self._finding(part, row)
                return Finding(matches, f"{text}: {inner.text}", _without_verdict(inner.parts))
        parts = tuple(self._finding(part, row) for part in node.parts)
        if isinstance(node, And):
            return Finding(matches, "all of these must match", parts)
        return Finding(matches, "one of these must match", parts)

    def _condition(self, node: Condition) -> str:
        name, operand = ".".join(node.ref), node.operand
        if self._is_hidden(node.ref):
            return f"{name} ({node.operator.name}, compared with {HIDDEN})"
        if node.operator in (IN, NOT_IN):
            values = [_unwrapped(node.kind, value) for value in operand]
            if len(values) == 1:
                return f"{name} {'=' if node.operator is IN else '!='} {text_of(values[0])}"
            listed = ", ".join(map(text_of, values[:MAX_VALUES]))
            more = "" if len(values) <= MAX_VALUES else f" and {len(values) - MAX_VALUES} more"
            return f"{name} {'in' if node.operator is IN else 'not in'} [{listed}{more}]"
        if node.operator.name == "isnull":
            return f"{name} is {'null' if operand else 'not null'}"
        if node.operator.operand == "text_or_member" and isinstance(operand, tuple):
            operand = operand[0]
        value = text_of(_unwrapped(node.kind, operand))
        return f"{name} {_SIGNS.get(node.operator.name, node.operator.name)} {value}"

    def _membership(self, node: InKeySet, row: Row, *, matches: bool) -> str:
        model = self._models.get(node.key_set, "related rows")
        text = f"{'.'.join(node.ref)} in (queryset of {model}): {self._value(node.ref, row)}"
        if row.raw(node.ref) is None:
            return f"{text}, which no queryset returns"
        if matches:
            return f"{text}, which the queryset returns"
        count = len(node.key_set)
        keys = "no key" if count == 0 else f"{count} other {'key' if count == 1 else 'keys'}"
        return f"{text}, which the queryset does not return; it returns {keys}"

    def _value(self, ref: Ref, row: Row) -> str:
        raw = row.raw(ref)
        if raw is None:
            return "the row has null"
        if self._is_hidden(ref):
            return f"the row has {HIDDEN}"
        is_json = len(ref) > 1 or self._collection.schema[ref[0]].kind is Kind.JSON
        value = raw if is_json or (value := row.get(ref)) is None else value
        return f"the row has {text_of(value)}"

    def _is_hidden(self, ref: Ref) -> bool:
        collection = self._collection
        if ref[:1] and ref[0] in collection.codec.raw_names:
            return True
        allowed = {*collection.not_secret, ".".join(ref)} if ref[0] in collection.not_secret else ()
        return any(is_secret_looking(part) and part not in allowed for part in ref)


def _without_verdict(parts: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Return the parts of a clause that is negated, whose verdict is that of the negation."""
    return tuple(Finding(None, part.text, _without_verdict(part.parts)) for part in parts)


def _unwrapped(kind: Kind, value: Any) -> Any:
    """Return an operand without its type, which operands for JSON have."""
    is_tagged = kind is Kind.JSON and isinstance(value, tuple) and len(value) == 2
    return value[1] if is_tagged else value


def text_of(value: Any) -> str:
    """Return a value as a short text."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case datetime() | date() | time():
            text = value.isoformat()
        case str():
            text = repr(value)
        case list() | dict():  # which may contain secrets
            text = (
                f"{'an array' if isinstance(value, list) else 'an object'} with {len(value)} values"
            )
        case _:
            text = str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def names_of_none(visible: Any) -> Iterator[str]:
    """Yield the keys that a return value of ``visible_to`` compares with None."""
    if isinstance(visible, Mapping):
        for key, value in visible.items():
            yield from _names_of_none(str(key), value)


def _names_of_none(key: str, value: Any) -> Iterator[str]:
    if value is None or (isinstance(value, Model) and value.pk is None):
        yield key
    elif isinstance(value, Mapping):
        for inner, inner_value in value.items():
            # of {"owner": {"ne": None}}, the field
            yield from _names_of_none(str(inner) if key.startswith("$") else key, inner_value)
    elif isinstance(value, list | tuple | set | frozenset):
        for member in value:
            yield from _names_of_none(key, member)
