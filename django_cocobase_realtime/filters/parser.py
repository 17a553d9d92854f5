"""From the JSON that a client sent to a `Filter`: the flat form, the structured one, or both.

Flat (Cocobase's): ``{"age_gte": 18, "[or]role": "admin", "[or]role_isnull": true}``. Structured:
``{"age": {"gte": 18, "lt": 65}, "$or": [{"role": "admin"}, …], "$not": {…}}``. Keys are ANDed.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .keys import OPERATORS, Names
from .nodes import NEVER, Condition, Filter, Node, Op, all_of, any_of, negate, values_of
from .schema import FieldSpec, InvalidFilter, Kind, Ref, Schema, coerce, fold

ORDERED = {"gt": Op.GT, "gte": Op.GTE, "lt": Op.LT, "lte": Op.LTE}
TEXTUAL = {
    "contains": Op.CONTAINS,
    "icontains": Op.CONTAINS,
    "startswith": Op.STARTS_WITH,
    "endswith": Op.ENDS_WITH,
}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """Bounds on a client's filter: conditions in all, levels of nesting, values of one list."""

    clauses: int = 16
    depth: int = 3
    values: int = 100


def parse(
    filters: Mapping[str, Any],
    schema: Schema,
    *,
    allowed: Collection[str] | None = None,
    limits: FilterLimits | None = None,
    trusted: bool = False,
    aliases: dict[str, str] | None = None,
) -> Filter:
    """Parse and check a filter. Raises `InvalidFilter`: it names the key and what is allowed.

    ``allowed`` are the fields (and paths into JSON fields) that this client may name, None for
    all of the schema. ``trusted`` is for the project's own code: model instances stand for their
    key, any iterable is a list, and a None value matches nothing instead of being refused.
    ``aliases`` are other names of fields.
    """
    return Filter(_Parser(Names(schema, allowed, aliases), schema, limits, trusted).object(filters))


class _Parser:
    """One filter's way through the grammar; counts what it bounds."""

    def __init__(
        self, names: Names, schema: Schema, limits: FilterLimits | None, trusted: bool
    ) -> None:
        self._names = names
        self._schema = schema
        self._limits = limits
        self._trusted = trusted
        self._clauses = 0

    def object(self, filters: Any, depth: int = 1, key: str = "filters") -> Node:
        if not isinstance(filters, Mapping):
            raise InvalidFilter(f"{key!r} must be an object of conditions.")
        if self._limits is not None and depth > self._limits.depth:
            raise InvalidFilter(f"A filter may be {self._limits.depth} levels deep at most.")
        parts: list[Node] = []
        groups: dict[str, list[Node]] = {}
        for name, value in filters.items():
            if not isinstance(name, str):
                raise InvalidFilter(f"{name!r} is no name of a field.")
            if name.startswith("$"):
                parts.append(self._combine(name, value, depth))
                continue
            found = self._names.parse(name, plain=isinstance(value, Mapping))
            node = any_of(
                [all_of(self._conditions(r, found.operator, value, name)) for r in found.refs]
            )
            if found.group is None:
                parts.append(node)
            else:
                groups.setdefault(found.group, []).append(node)
        return all_of([*parts, *map(any_of, groups.values())])

    def _combine(self, name: str, value: Any, depth: int) -> Node:
        if name == "$not":
            return negate(self.object(value, depth + 1, name))
        if name not in ("$or", "$and"):
            raise InvalidFilter(f"{name!r} is unknown; there are $or, $and and $not.")
        if not isinstance(value, list | tuple) or not value:
            raise InvalidFilter(f"{name!r} must be a list of objects, with one at least.")
        nodes = [self.object(each, depth + 1, name) for each in value]
        return any_of(nodes) if name == "$or" else all_of(nodes)

    def _conditions(self, ref: Ref, operator: str | None, value: Any, key: str) -> Iterator[Node]:
        if operator is None and isinstance(value, Mapping):
            if not value:
                raise InvalidFilter(f"{key!r}: name an operator; there are {list(OPERATORS)}.")
            for name, operand in value.items():
                if name not in OPERATORS:
                    raise InvalidFilter(
                        f"{key!r}: {name!r} is no operator; there are {list(OPERATORS)}."
                    )
                yield self._condition(ref, name, operand, key)
        else:
            yield self._condition(ref, operator or "eq", value, key)

    def _condition(self, ref: Ref, operator: str, value: Any, key: str) -> Node:
        self._clauses += 1
        if self._limits is not None and self._clauses > self._limits.clauses:
            raise InvalidFilter(f"A filter may have {self._limits.clauses} conditions at most.")
        spec = self._schema[ref[0]] if len(ref) == 1 else FieldSpec(ref[0], Kind.JSON)
        kind = spec.compares_as
        if operator == "isnull":
            return Condition(ref, kind, Op.IS_NULL, self._truth(value, key))
        if kind is Kind.OPAQUE:
            raise InvalidFilter(f"{key!r} holds {_a(kind)}; it knows isnull alone.")
        if operator in ("in", "notin", "between"):
            return self._list(ref, spec, operator, value, key)
        if value is None:
            if self._trusted:
                return NEVER
            raise InvalidFilter(f"{key!r}: null equals nothing; ask with isnull.")
        if operator in TEXTUAL:
            return Condition(ref, kind, TEXTUAL[operator], self._text(kind, operator, value, key))
        operand = self._coerce(spec, value, key)
        if operator in ORDERED:
            return _ordered(ref, kind, operator, operand, key)
        return _equality(ref, kind, Op.IN if operator == "eq" else Op.NOT_IN, operand)

    def _list(self, ref: Ref, spec: FieldSpec, operator: str, value: Any, key: str) -> Node:
        values = self._values(value, key)
        kind = spec.compares_as
        if operator == "between":
            if len(values) != 2:
                raise InvalidFilter(f"{key!r}: between takes two values, both included.")
            if None in values:
                return NEVER
            low, high = (self._coerce(spec, each, key) for each in values)
            bounds = (_ordered(ref, kind, "gte", low, key), _ordered(ref, kind, "lte", high, key))
            return all_of(bounds)
        operands = values_of([self._coerce(spec, each, key) for each in values if each is not None])
        if operator == "notin":
            return Condition(ref, kind, Op.NOT_IN, operands)
        return Condition(ref, kind, Op.IN, operands) if operands else NEVER

    def _values(self, value: Any, key: str) -> list[Any]:
        if value is None and self._trusted:
            return []
        if isinstance(value, str):
            values: list[Any] = [part.strip() for part in value.split(",")]
        elif isinstance(value, list | tuple) or (
            self._trusted and hasattr(value, "__iter__") and not isinstance(value, Mapping)
        ):
            values = list(value)
        else:
            raise InvalidFilter(f"{key!r} must be a list, or a text with commas.")
        if self._limits is not None and len(values) > self._limits.values:
            raise InvalidFilter(f"{key!r} may have {self._limits.values} values at most.")
        if None in values and not self._trusted:
            raise InvalidFilter(f"{key!r}: null equals nothing; ask with isnull.")
        return values

    def _coerce(self, spec: FieldSpec, value: Any, key: str) -> Any:
        if self._trusted:
            value = getattr(value, "pk", value)  # a model instance stands for its id
        try:
            return coerce(spec, value)
        except (ValueError, TypeError, OverflowError):
            raise InvalidFilter(f"{key!r} must be {_a(spec.compares_as)}.") from None

    def _text(self, kind: Kind, operator: str, value: Any, key: str) -> Any:
        if kind is Kind.JSON and operator in ("contains", "icontains"):
            tagged = self._coerce(FieldSpec("", Kind.JSON), value, key)
            return tagged, fold(value) if isinstance(value, str) else None
        if kind not in (Kind.TEXT, Kind.ADDRESS, Kind.JSON):
            raise InvalidFilter(f"{key!r}: {operator} is for text; this is {_a(kind)}.")
        if not isinstance(value, str):
            raise InvalidFilter(f"{key!r}: {operator} takes a text.")
        return fold(value)

    def _truth(self, value: Any, key: str) -> bool:
        text = str(value).lower() if isinstance(value, str | int) else ""
        if text not in _TRUTH:
            raise InvalidFilter(f"{key!r}: isnull takes true or false.")
        return _TRUTH[text]


def _a(kind: Kind) -> str:
    return f"{'an' if kind.value[0] in 'aeioI' else 'a'} {kind.value}"


def _equality(ref: Ref, kind: Kind, op: Op, operand: Hashable) -> Condition:
    return (_shared if kind in _PLAIN else Condition)(ref, kind, op, (operand,))


_PLAIN = frozenset({Kind.TEXT, Kind.INTEGER, Kind.BOOLEAN, Kind.UUID})  # equal means the same
_shared = lru_cache(maxsize=1024)(Condition)
"""What many ask for (a project, a state) is there once."""


def _ordered(ref: Ref, kind: Kind, operator: str, operand: Any, key: str) -> Condition:
    if kind is Kind.JSON and operand[0] == "boolean":
        raise InvalidFilter(f"{key!r}: {operator} is for numbers and texts.")
    return Condition(ref, kind, ORDERED[operator], operand)
