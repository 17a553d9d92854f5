"""What a permission, however combined, comes to for one identity: rows, fields, a check a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

from django.db import models

from ..filters import Filter, Row, Schema
from ..identity import Identity
from ..permissions import And, Not, Or, Permission, Visible

RowCheck = Callable[[Row, models.Model], bool]
"""Whether one row, also given as an instance, may be seen. May use the ORM."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Rows within ``visible`` and, where there is one, by ``check``; ``fields`` None for all."""

    visible: Filter
    fields: frozenset[str] | None = None
    check: RowCheck | None = None

    @property
    def shows_all(self) -> bool:
        """Whether every row is visible."""
        return self.check is None and self.visible == Filter.everything()

    def sees(self, row: Row, instance: models.Model) -> bool:
        """Whether the row is among what is visible."""
        return self.visible.matches(row) and (self.check is None or self.check(row, instance))


@dataclass(frozen=True, slots=True)
class Grant:
    """What one identity may see of a collection: rows by ``decision``, fields by ``fields``.

    ``fields`` is None for a serializer's whole document. ``filters`` may be named by its clients:
    names of ``schema``, and paths into JSON fields. ``tracked``: old values are known.
    """

    decision: Decision
    fields: tuple[str, ...] | None
    filters: frozenset[str]
    schema: Schema
    tracked: bool = True


Parse = Callable[[Visible], Filter]


def evaluate_permission(
    permission: Any,
    identity: Identity,
    filters: Mapping[str, Any],
    parse: Parse,
    collection: Any = None,
) -> Decision | None:
    """Ask a permission (class, instance or combination); None for a refusal.

    ``filters`` are the client's, ``parse`` makes a `Filter` of what ``visible_to`` returned.
    """
    match permission:
        case And(parts=parts):
            return _both(
                [evaluate_permission(part, identity, filters, parse, collection) for part in parts]
            )
        case Or(parts=parts):
            return _either(
                [evaluate_permission(part, identity, filters, parse, collection) for part in parts]
            )
        case Not(part=part):
            return _inverse(evaluate_permission(part, identity, filters, parse, collection))
    asked = permission() if isinstance(permission, type) else copy(permission)
    if hasattr(asked, "collection"):
        asked.collection = collection
    if not _call(asked, "can_subscribe", identity, filters):
        return None
    fields = _call(asked, "fields_for", identity)
    check: RowCheck | None = None
    by_row = getattr(asked, "has_object_permission", None)
    if by_row is not None:
        check = lambda row, instance: bool(by_row(identity, instance))  # noqa: E731
    visible = parse(_call(asked, "visible_to", identity))
    return Decision(visible, None if fields is None else frozenset(fields), check)


def _call(permission: Any, question: str, *args: Any) -> Any:
    answer = getattr(permission, question, None) or getattr(Permission(), question)
    return answer(*args)


def _both(decisions: list[Decision | None]) -> Decision | None:
    if None in decisions:
        return None
    given = [decision for decision in decisions if decision is not None]
    first, second = given
    check: RowCheck | None = None
    if first.check is not None or second.check is not None:
        check = lambda row, instance: all(d.sees(row, instance) for d in given)  # noqa: E731
    return Decision(first.visible & second.visible, _common(given), check)


def _either(decisions: list[Decision | None]) -> Decision | None:
    given = [decision for decision in decisions if decision is not None]
    if len(given) < 2:
        return given[0] if given else None
    first, second = given
    check: RowCheck | None = None
    if first.check is not None or second.check is not None:
        check = lambda row, instance: any(d.sees(row, instance) for d in given)  # noqa: E731
    return Decision(first.visible | second.visible, _common(given), check)


def _inverse(decision: Decision | None) -> Decision | None:
    if decision is None:
        return Decision(Filter.everything())
    if decision.shows_all:
        return None
    if decision.check is None:
        return Decision(~decision.visible)
    return Decision(Filter.everything(), None, lambda row, each: not decision.sees(row, each))


def _common(decisions: list[Decision]) -> frozenset[str] | None:
    named = [decision.fields for decision in decisions if decision.fields is not None]
    return frozenset.intersection(*named) if named else None
