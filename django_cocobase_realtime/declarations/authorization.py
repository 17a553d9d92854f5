"""Evaluation of permissions and their combinations, which decides what an identity may see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

from django.db import models

from ..filters import Filter, Row, Schema
from ..identity import Identity
from ..permissions import And, Not, Or, Permission, Visible

# returns whether a row may be seen; None if that is unknown, because of a None in a filter or as a
# result of `has_object_permission`: neither the check nor its negation then shows the row. The row
# is passed twice: in the form that filters are evaluated on, and as an instance. The function may
# use the ORM
RowCheck = Callable[[Row, models.Model], bool | None]


@dataclass(frozen=True, slots=True)
class Decision:
    """The rows and fields that a permission allows."""

    # a filter that visible rows must match
    visible: Filter
    # names of the readable fields, None for all
    fields: frozenset[str] | None = None
    # a further condition, which is evaluated for each row
    check: RowCheck | None = None

    @property
    def shows_all(self) -> bool:
        """Whether every row is visible."""
        return self.check is None and self.visible == Filter.everything()

    def sees(self, row: Row, instance: models.Model) -> bool:
        """Return whether a row is visible."""
        return self.visible.matches(row) and (self.check is None or bool(self.check(row, instance)))

    def decide(self, row: Row, instance: models.Model) -> bool | None:
        """Return whether a row is visible; None if that is unknown, see `RowCheck`."""
        is_visible = self.visible.decide(row)
        if is_visible is False or self.check is None:
            return is_visible
        return _all((is_visible, self.check(row, instance)))


@dataclass(frozen=True, slots=True)
class Grant:
    """The rows and fields of a collection that one identity may see, and may filter by."""

    decision: Decision
    # names of the readable fields; None if the whole document of a serializer is readable
    fields: tuple[str, ...] | None
    # fields that filters of the client may use: names in ``schema``, and paths into JSON fields
    filters: frozenset[str]
    # the fields of the collection and their kinds
    schema: Schema
    # names of the fields of the primary key, whose values are in the id of a document
    key: tuple[str, ...]
    # the name of the collection's stream
    stream: str
    # whether old values of changed rows are known
    tracked: bool = True


# converts a return value of `visible_to` to a filter
Parse = Callable[[Visible], Filter]


def evaluate_permission(
    permission: Any,
    identity: Identity,
    filters: Mapping[str, Any],
    parse: Parse,
    collection: Any = None,
) -> Decision | None:
    """Return the rows and fields that a permission allows an identity, or None if it refuses.

    ``permission`` is a class, an instance or a combination. ``filters`` are those of the client.
    ``parse`` converts return values of ``visible_to``. If the permission has an attribute
    ``collection``, it is set to that argument.
    """
    match permission:
        case And(parts=parts):
            return _and(
                [evaluate_permission(part, identity, filters, parse, collection) for part in parts]
            )
        case Or(parts=parts):
            return _or(
                [evaluate_permission(part, identity, filters, parse, collection) for part in parts]
            )
        case Not(part=part):
            return _not(evaluate_permission(part, identity, filters, parse, collection))
    instance = permission() if isinstance(permission, type) else copy(permission)
    if hasattr(instance, "collection"):
        instance.collection = collection
    if not _call(instance, "can_subscribe", identity, filters):
        return None
    fields = _call(instance, "fields_for", identity)
    check: RowCheck | None = None
    has_object_permission = getattr(instance, "has_object_permission", None)
    if has_object_permission is not None:

        def check(row: Row, row_instance: models.Model) -> bool | None:
            result = has_object_permission(identity, row_instance)
            return None if result is None else bool(result)

    visible = parse(_call(instance, "visible_to", identity))
    return Decision(visible, None if fields is None else frozenset(fields), check)


def _call(permission: Any, method_name: str, *args: Any) -> Any:
    """Call a method of a permission; if it is missing, call that of `Permission`."""
    method = getattr(permission, method_name, None) or getattr(Permission(), method_name)
    return method(*args)


def _and(decisions: list[Decision | None]) -> Decision | None:
    allowed = [decision for decision in decisions if decision is not None]
    if len(allowed) < 2:
        return None
    first, second = allowed
    check: RowCheck | None = None
    if first.check is not None or second.check is not None:
        check = lambda row, instance: _all(d.decide(row, instance) for d in allowed)  # noqa: E731
    return Decision(first.visible & second.visible, _common_fields(allowed), check)


def _or(decisions: list[Decision | None]) -> Decision | None:
    allowed = [decision for decision in decisions if decision is not None]
    if len(allowed) < 2:
        return allowed[0] if allowed else None
    first, second = allowed
    check: RowCheck | None = None
    if first.check is not None or second.check is not None:
        check = lambda row, instance: _any(d.decide(row, instance) for d in allowed)  # noqa: E731
    return Decision(first.visible | second.visible, _common_fields(allowed), check)


def _not(decision: Decision | None) -> Decision | None:
    if decision is None:
        return Decision(Filter.everything())
    if decision.shows_all:
        return None
    if decision.check is None:
        return Decision(~decision.visible)
    return Decision(
        Filter.everything(), None, lambda row, instance: _negate(decision.decide(row, instance))
    )


# logic with three values, of which None is "unknown"


def _all(values: Iterable[bool | None]) -> bool | None:
    is_known = True
    for value in values:
        if value is None:
            is_known = False
        elif not value:
            return False
    return True if is_known else None


def _any(values: Iterable[bool | None]) -> bool | None:
    return _negate(_all(_negate(value) for value in values))


def _negate(value: bool | None) -> bool | None:
    return None if value is None else not value


def _common_fields(decisions: list[Decision]) -> frozenset[str] | None:
    restrictions = [decision.fields for decision in decisions if decision.fields is not None]
    return frozenset.intersection(*restrictions) if restrictions else None
