"""Checks of the code of permissions."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from dis import get_instructions
from types import CodeType
from typing import Any

from django.core.checks import CheckMessage

from ..declarations.registry import registry
from ..permissions import And, Not, Or
from .base import warning

# functions that return the current time
CLOCKS = frozenset({"now", "utcnow", "today", "localtime", "localdate", "time_ns", "monotonic"})


def check_moments() -> Iterator[CheckMessage]:
    """Check that no `visible_to` looks at the clock: it is asked once per subscription."""
    for collection in registry:
        for part in (type(collection), *permission_parts(collection.loaded_permission)):
            names = _clocks(getattr(part, "visible_to", None))
            if names:
                yield warning(
                    55,
                    f"Collection {collection.name!r}: {getattr(part, '__qualname__', part)}."
                    f"visible_to calls {', '.join(names)}, but it is asked only when a "
                    "subscription starts.",
                    "The time stays that of the start, and no event is sent when a row becomes "
                    "visible because time passes. Compare times in has_object_permission, or "
                    "filter by a field that a job updates.",
                )


def permission_parts(permission: Any) -> Iterator[Any]:
    """Yield the permissions of which a combination consists."""
    match permission:
        case None:
            return
        case And(parts=parts) | Or(parts=parts):
            for part in parts:
                yield from permission_parts(part)
        case Not(part=part):
            yield from permission_parts(part)
        case _:
            yield permission


def _clocks(method: Any) -> list[str]:
    """Return the names of the clocks that the code of a method refers to."""
    function = inspect.unwrap(getattr(method, "__func__", method)) if callable(method) else None
    code = getattr(function, "__code__", None)
    if code is None:
        return []
    clocks = CLOCKS.intersection(_names(code))
    # "time" may also be the name of a field, or the class for times of day
    is_clock = getattr(function, "__globals__", {}).get("time") in (time, time.time)
    if is_clock and any(
        i.argval == "time" and "GLOBAL" in i.opname for i in get_instructions(code)
    ):
        clocks |= {"time"}
    return sorted(clocks)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
