"""Parser of filters, which clients send as JSON.

Filters have two forms, which may be mixed:

- the flat form, which Cocobase uses:
  ``{"age_gte": 18, "[or]role": "admin", "[or]role_isnull": true}``
- the structured form:
  ``{"age": {"gte": 18, "lt": 65}, "$or": [{"role": "admin"}, ...], "$not": {...}}``

A row matches if it fulfils the conditions of all keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from types import NoneType
from typing import Any, assert_never

from .filter import Filter
from .key_set import KeySet
from .keys import FieldNames, Path, Paths, Target
from .nodes import NEVER, Condition, InKeySet, Node, Values, all_of, any_of, negate, values_of
from .operators import IN, IS_NULL, NOT_IN, OPERATORS, Operator, Shorthand
from .schema import INT64, FieldSpec, InvalidFilter, Kind, Ref, Schema, coerce, fold
from .unknown import UNKNOWN, has_unknown

# returns the set for a field and a queryset of related rows with which the field is compared
MakeKeySet = Callable[[str, Any], KeySet]


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """Limits of a client's filter."""

    # number of conditions in the whole filter
    clauses: int = 16
    # levels of nested objects, including the outermost
    depth: int = 3
    # number of values in one list
    values: int = 100


def parse(
    filters: Mapping[str, Any],
    schema: Schema,
    *,
    allowed: Collection[str] | None = None,
    limits: FilterLimits | None = None,
    trusted: bool = False,
    aliases: dict[str, str] | None = None,
    key_set: MakeKeySet | None = None,
    paths: Paths | None = None,
) -> Filter:
    """Parse a filter, and check that it is valid.

    ``allowed`` are the fields (and paths into JSON fields) that this client may use, None for the
    whole schema. ``trusted`` is for the project's own code: a model instance is taken as its
    primary key, a member of an enumeration as its value, any iterable as a list, and a condition
    whose value is None matches nothing, negated or not, instead of being refused (see
    ``unknown``). ``aliases`` are further names of fields.

    ``paths`` recognises paths through related models; clients may use those in ``allowed``.
    ``key_set`` makes the set for such a path, or for a queryset that a trusted filter contains,
    given the name of the field and the queryset. Without it, both are refused.

    Raises `InvalidFilter`, with a message that names the key and what is allowed.
    """
    names = FieldNames(schema, allowed, aliases, paths)
    return Filter(_Parser(names, schema, limits, trusted, key_set).parse_object(filters))


class _Parser:
    """Parses one filter, and counts its conditions."""

    def __init__(
        self,
        names: FieldNames,
        schema: Schema,
        limits: FilterLimits | None,
        trusted: bool,
        key_set: MakeKeySet | None,
    ) -> None:
        self._names = names
        self._schema = schema
        self._limits = limits
        self._trusted = trusted
        self._key_set = key_set
        self._clauses = 0

    def parse_object(self, filters: Any, depth: int = 1, key: str = "filters") -> Node:
        """Return the conjunction of the conditions in an object.

        ``key`` is the key of the object, for error messages.
        """
        if not isinstance(filters, Mapping):
            raise InvalidFilter(f"{key!r} must be an object of conditions.")
        if self._limits is not None and depth > self._limits.depth:
            raise InvalidFilter(f"A filter may be {self._limits.depth} levels deep at most.")
        parts: list[Node] = []
        groups: dict[str, list[Node]] = {}
        for name, value in filters.items():
            if not isinstance(name, str):
                raise InvalidFilter(f"{name!r} is not the name of a field.")
            if name.startswith("$"):
                parts.append(self._parse_combination(name, value, depth))
                continue
            parsed = self._names.parse(name, operator_in_value=isinstance(value, Mapping))
            node = any_of(
                [
                    all_of(self._parse_conditions(target, parsed.operator, value, name))
                    for target in parsed.targets
                ]
            )
            if parsed.group is None:
                parts.append(node)
            else:
                groups.setdefault(parsed.group, []).append(node)
        return all_of([*parts, *map(any_of, groups.values())])

    def _parse_combination(self, name: str, value: Any, depth: int) -> Node:
        if name == "$not":
            return negate(self.parse_object(value, depth + 1, name))
        if name not in ("$or", "$and"):
            raise InvalidFilter(f"{name!r} is unknown; use $or, $and or $not.")
        if not isinstance(value, list | tuple) or not value:
            raise InvalidFilter(f"{name!r} must be a list of at least one object.")
        nodes = [self.parse_object(part, depth + 1, name) for part in value]
        return any_of(nodes) if name == "$or" else all_of(nodes)

    def _parse_conditions(
        self, target: Target, operator: str | None, value: Any, key: str
    ) -> Iterator[Node]:
        if operator is None and isinstance(value, Mapping):
            if not value:
                raise InvalidFilter(f"{key!r} needs an operator: one of {list(OPERATORS)}.")
            for name, operand in value.items():
                if name not in OPERATORS:
                    raise InvalidFilter(
                        f"{key!r}: {name!r} is not an operator; use one of {list(OPERATORS)}."
                    )
                yield from self._parse_condition(target, OPERATORS[name], operand, key)
        else:
            yield from self._parse_condition(target, OPERATORS[operator or "eq"], value, key)

    def _parse_condition(
        self, target: Target, operator: Operator | Shorthand, value: Any, key: str
    ) -> Collection[Node]:
        self._clauses += 1
        if self._limits is not None and self._clauses > self._limits.clauses:
            raise InvalidFilter(f"A filter may have {self._limits.clauses} conditions at most.")
        if self._trusted and _is_queryset(value):
            return (self._parse_queryset(target, operator, value, key),)
        if isinstance(target, tuple):
            return self._parse_comparison(target, self._spec(target), operator, value, key)
        parts = self._parse_comparison(target.ref, target.spec, operator, value, key)
        return (self._relate(target, all_of(parts), key),)

    def _spec(self, ref: Ref) -> FieldSpec:
        return self._schema[ref[0]] if len(ref) == 1 else FieldSpec(ref[0], Kind.JSON)

    def _parse_comparison(
        self, ref: Ref, spec: FieldSpec, operator: Operator | Shorthand, value: Any, key: str
    ) -> Collection[Node]:
        kind = spec.compares_as
        if kind is Kind.OPAQUE and kind not in operator.kinds:
            usable = ", ".join(name for name, entry in OPERATORS.items() if kind in entry.kinds)
            raise InvalidFilter(f"{key!r} holds {_with_article(kind)}; use only {usable}.")
        if self._trusted:
            value = _plain(value)
            if value is None:
                return (UNKNOWN,)
            if operator in (IN, NOT_IN) and not isinstance(value, str):
                values = self._parse_list(value, key)
                value = [item for item in values if item is not None]
                if len(value) < len(values):
                    inside = Condition(ref, kind, IN, self._parse_values(spec, value, key))
                    return (_with_unknown_value(inside, operator),)
        operand = self._parse_operand(operator, spec, value, key)
        if operand is None:
            return (UNKNOWN,)
        shared = operator.operand == "value" and kind in _SHARED_KINDS
        make = _shared_condition if shared else Condition
        return [make(ref, kind, *expanded) for expanded in operator.expand(operand)]

    # related rows

    def _parse_queryset(
        self, target: Target, operator: Operator | Shorthand, queryset: Any, key: str
    ) -> Node:
        """Return the node for a queryset of related rows, whose keys are compared."""
        spec = self._spec(target) if isinstance(target, tuple) else target.spec
        if operator not in (IN, NOT_IN):
            raise InvalidFilter(f"{key!r}: a queryset can only be compared by in or notin.")
        if spec.compares_as in (Kind.JSON, Kind.OPAQUE):
            raise InvalidFilter(
                f"{key!r} holds {_with_article(spec.compares_as)}, which cannot be compared with a "
                "queryset."
            )
        if not isinstance(target, tuple):
            related = target.matching_keys(queryset, negated=operator is NOT_IN)
            return self._in_key_set(target.field, related, key)
        node = self._in_key_set(target[0], queryset, key)
        if operator is IN:
            return node
        has_value = Condition(target, spec.compares_as, NOT_IN, ())
        return all_of((has_value, negate(node)))

    def _relate(self, path: Path, node: Node, key: str) -> Node:
        """Return the node for the rows of which some related row matches ``node``."""
        filter = Filter(node)
        nodes: list[Node] = [UNKNOWN] if has_unknown(node) else []
        if filter.root != NEVER:
            nodes.append(self._in_key_set(path.field, path.matching(filter), key))
        if isinstance(node, Condition) and node.operator is IS_NULL and node.operand:
            # a row without related rows
            spec = self._schema[path.field]
            if path.by_first_part:
                nodes.append(Condition(spec.ref, spec.compares_as, IS_NULL, True))
        return any_of(nodes)

    def _in_key_set(self, field: str, queryset: Any, key: str) -> Node:
        if self._key_set is None:
            raise InvalidFilter(
                f"{key!r}: related rows cannot be compared here, since they are not followed. "
                "Use list(queryset) to read their keys once."
            )
        spec = self._schema[field]
        return InKeySet(spec.ref, spec.compares_as, self._key_set(field, queryset))

    # operands; ``key`` is for error messages

    def _parse_operand(
        self, operator: Operator | Shorthand, spec: FieldSpec, value: Any, key: str
    ) -> Any:
        """Return the operand that the operator needs, made of the client's value.

        Returns None if the value is null in a trusted filter: the condition then matches nothing.
        """
        match operator.operand:
            case "boolean":
                return self._parse_boolean(operator, value, key)
            case "values":
                return self._parse_values(spec, value, key)
            case "ordered_pair":
                return self._parse_pair(operator, spec, value, key)
        if value is None:
            self._check_null(key)
            return None
        kind = spec.compares_as
        if kind not in operator.kinds:
            raise InvalidFilter(
                f"{key!r}: {operator.name} is for {operator.kinds.label}; "
                f"this is {_with_article(kind)}."
            )
        match operator.operand:
            case "value":
                return self._coerce_equal(spec, value, key)
            case "ordered_value":
                return self._parse_ordered(operator, spec, value, key)
            case "text_or_member" if kind is Kind.JSON:
                member = self._coerce(spec, value, key)
                return member, fold(value) if isinstance(value, str) else None
            case "text" | "text_or_member":
                if not isinstance(value, str):
                    raise InvalidFilter(f"{key!r}: {operator.name} takes a text.")
                return fold(value)
            case unknown:
                assert_never(unknown)

    def _parse_boolean(self, operator: Operator | Shorthand, value: Any, key: str) -> bool:
        try:
            return bool(coerce(_BOOLEAN, value))
        except ValueError:
            message = f"{key!r}: {operator.name} takes true or false."
            raise InvalidFilter(message) from None

    def _parse_values(self, spec: FieldSpec, value: Any, key: str) -> Values:
        values = self._parse_list(value, key)
        coerced = [self._coerce_equal(spec, item, key) for item in values]
        return values_of(spec.compares_as, coerced)

    def _parse_pair(
        self, operator: Operator | Shorthand, spec: FieldSpec, value: Any, key: str
    ) -> tuple[Any, Any] | None:
        values = self._parse_list(value, key)
        if len(values) != 2:
            raise InvalidFilter(f"{key!r}: {operator.name} takes a list of two values.")
        if any(bound is None for bound in values):
            return None
        low, high = (self._parse_ordered(operator, spec, bound, key) for bound in values)
        return low, high

    def _parse_list(self, value: Any, key: str) -> list[Any]:
        """Return the values of a list, which can contain None only in a trusted filter."""
        if isinstance(value, str):
            values: list[Any] = [part.strip() for part in value.split(",")]
        elif isinstance(value, list | tuple) or (
            self._trusted and hasattr(value, "__iter__") and not isinstance(value, Mapping)
        ):
            values = list(map(_plain, value)) if self._trusted else list(value)
        else:
            raise InvalidFilter(f"{key!r} must be a list, or a text with commas.")
        if self._limits is not None and len(values) > self._limits.values:
            raise InvalidFilter(f"{key!r} may have {self._limits.values} values at most.")
        if any(item is None for item in values):
            self._check_null(key)
        return values

    def _parse_ordered(
        self, operator: Operator | Shorthand, spec: FieldSpec, value: Any, key: str
    ) -> Any:
        operand = self._coerce(spec, value, key)
        if spec.compares_as is Kind.JSON and operand[0] == "boolean":
            raise InvalidFilter(f"{key!r}: {operator.name} is for numbers and texts.")
        return operand

    def _coerce_equal(self, spec: FieldSpec, value: Any, key: str) -> Any:
        """Return a value to compare for equality; a client's must be one that a row can hold."""
        operand = self._coerce(spec, value, key)
        is_integer = self._limits is not None and spec.compares_as is Kind.INTEGER
        if is_integer and operand not in INT64:
            raise InvalidFilter(f"{key!r} must be an integer of 64 bits at most.")
        return operand

    def _coerce(self, spec: FieldSpec, value: Any, key: str) -> Any:
        try:
            return coerce(spec, value)
        except (ValueError, TypeError, OverflowError):
            raise InvalidFilter(f"{key!r} must be {_with_article(spec.compares_as)}.") from None

    def _check_null(self, key: str) -> None:
        if not self._trusted:
            raise InvalidFilter(f"{key!r}: null equals nothing; use isnull.")


def _is_queryset(value: Any) -> bool:
    """Return whether a value is one of Django's querysets, which are recognised by a method."""
    return hasattr(type(value), "prefetch_related") and hasattr(type(value), "__iter__")


def _plain(value: Any) -> Any:
    """Return a value of the project's code: a key for a model instance, None for a lazy None.

    The key of an anonymous user, or of an instance that was not saved, is None.
    """
    value = getattr(value, "pk", value)
    value = value.value if isinstance(value, Enum) else value
    return None if isinstance(value, NoneType) else value


def _with_unknown_value(inside: Condition, operator: Operator | Shorthand) -> Node:
    """Return the node for ``in`` or ``notin`` with values of which one is None.

    ``inside`` is the condition that a value is one of the others. As in SQL, it is known of these
    values that they are in the list, but of no other value that it is not.
    """
    if operator is IN:
        return any_of((inside, UNKNOWN))
    return all_of((negate(inside), UNKNOWN)) if inside.operand else UNKNOWN


def _with_article(kind: Kind) -> str:
    return f"{'an' if kind.value[0] in 'aeioI' else 'a'} {kind.value}"


_BOOLEAN = FieldSpec("", Kind.BOOLEAN)

# kinds of which equal values are interchangeable, unlike Decimal("1") and Decimal("1.0"), and of
# which a client cannot choose many values with one hash, unlike UUIDs
_SHARED_KINDS = frozenset({Kind.TEXT, Kind.INTEGER, Kind.BOOLEAN})

# returns the same object for equal conditions with one value, which many filters may have
_shared_condition = lru_cache(maxsize=1024)(Condition)
