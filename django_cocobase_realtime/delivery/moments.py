"""Filters that contain the time at which they were made, such as `timezone.now()`.

A permission that compares with the current time returns another filter whenever it is asked. That
alone is no change of what a client may see: otherwise each evaluation would close its connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ..filters.nodes import And, Condition, InKeySet, Node, Not, Or

# seconds by which a moment may differ from the time that passed, because it was rounded, or taken
# some time before the rest of the permission was evaluated
TOLERANCE = 2.0
# seconds from now within which a number counts as a time
_NEAR = 10 * 366 * 86400.0
# characters of the shortest text that counts as a time, such as 2026-01-31T12:00:00
_MIN_TEXT = 19
# matches a time in the text of a key set's query
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)?)", re.ASCII
)


def has_moments(node: Node, now: float) -> bool:
    """Return whether a filter contains values that may be times; ``now`` is the present."""
    return any(_seconds(value, now) is not None for value in _values(node))


def differ_by_time(old: Node, new: Node, elapsed: float, now: float) -> bool:
    """Return whether the only difference between two filters is that time has passed.

    All values that differ must be times that differ by ``elapsed`` seconds. ``now`` is the present,
    as a Unix time.
    """
    match old, new:
        case (And(olds), And(news)) | (Or(olds), Or(news)):
            return len(olds) == len(news) and all(
                differ_by_time(first, second, elapsed, now)
                for first, second in zip(olds, news, strict=True)
            )
        case Not(first), Not(second):
            return differ_by_time(first, second, elapsed, now)
        case Condition(), Condition():
            if (old.ref, old.kind, old.operator) != (new.ref, new.kind, new.operator):
                return False
            operands: tuple[Any, ...] = old.operand, new.operand
            if old.operator.operand == "values":  # their order has no meaning
                operands = tuple(
                    tuple(sorted((v for v in values if v not in others), key=repr))
                    for values, others in (operands, operands[::-1])
                )
            return _differ_by(operands[0], operands[1], elapsed, now)
        case InKeySet(), InKeySet():
            # another time in the query makes another set
            if (old.ref, old.kind) != (new.ref, new.kind):
                return False
            texts = (node.key_set.description for node in (old, new))
            before, after = (tuple(_MOMENT.split(text)) for text in texts)
            return _differ_by(before, after, elapsed, now)
    return False


def _differ_by(old: Any, new: Any, elapsed: float, now: float) -> bool:
    if old == new:
        return True
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        return all(_differ_by(*pair, elapsed, now) for pair in zip(old, new, strict=True))
    before, after = _seconds(old, now), _seconds(new, now)
    if before is None or after is None:
        return False
    return abs(after - before - elapsed) <= TOLERANCE


def _values(node: Node) -> Iterator[Any]:
    match node:
        case And(parts) | Or(parts):
            for part in parts:
                yield from _values(part)
        case Not(part):
            yield from _values(part)
        case Condition():
            yield from _flat(node.operand)
        case InKeySet():
            yield from _MOMENT.findall(node.key_set.description)


def _flat(operand: Any) -> Iterator[Any]:
    if isinstance(operand, tuple):
        for value in operand:
            yield from _flat(value)
    else:
        yield operand


def _seconds(value: Any, now: float) -> float | None:
    """Return the Unix time that a value may stand for, or None."""
    try:
        if isinstance(value, str) and len(value) >= _MIN_TEXT:
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, bool | str):
            return None
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if abs(seconds - now) < _NEAR else None
