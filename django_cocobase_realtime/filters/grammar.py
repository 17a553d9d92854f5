"""From the JSON that a client sent to a `Filter`: an object of field and value, ANDed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .expression import Filter
from .schema import InvalidFilter, Kind, Schema, coerce


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """Bounds on a client's filter: keys, nesting, values of one key."""

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
) -> Filter:
    """Parse and check a filter. Raises `InvalidFilter`, whose message names what is allowed.

    ``allowed`` are the fields that this client may name, None for all of the schema. ``trusted``
    is for the project's own code: no limits, and a None value matches nothing instead of being
    refused.
    """
    names = sorted(schema if allowed is None else set(allowed) & set(schema))
    if limits is not None and len(filters) > limits.clauses:
        raise InvalidFilter(f"A filter may have {limits.clauses} keys at most.")
    found: dict[str, frozenset[Any]] = {}
    possible = True
    for name, value in filters.items():
        if name not in names:
            raise InvalidFilter(f"{name!r} cannot be filtered by; allowed are {names}.")
        if value is None:
            if not trusted:
                raise InvalidFilter(f"{name!r}: null equals nothing; leave the key out.")
            possible = False
            continue
        if trusted:
            value = getattr(value, "pk", value)  # a model instance stands for its id
        spec = schema[name]
        try:
            found[name] = frozenset((coerce(spec, value),))
        except (ValueError, OverflowError):
            kind = spec.key if spec.kind is Kind.KEY else spec.kind
            raise InvalidFilter(f"{name!r} must be a {kind.value}.") from None
    return Filter(found, possible)
