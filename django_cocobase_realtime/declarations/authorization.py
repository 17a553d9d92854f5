"""Evaluation of permissions and their combinations, which decides what an identity may see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

from django.db import models

from ..filters import ClientFilters, Filter, Row, Schema
from ..filters.paths import ModelPaths
from ..identity import Identity
from ..permissions import And, Not, Or, Permission, Visible
from ..utils.project_code import calling, synchronous

# returns whether a row may be seen; None if that is unknown, because of a None in a filter or as a
# result of `has_object_permission`: neither the check nor its negation then shows the row. The row
# is passed twice: in the form that filters are evaluated on, and as an instance. The function may
# use the ORM. Checks are equal only if they always return the same
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


class ObjectCheck:
    """Calls ``has_object_permission`` of one permission for one identity."""

    __slots__ = ("identity", "permission", "subject")

    def __init__(self, permission: Any, identity: Identity, subject: str) -> None:
        # an instance of its own, because ``can_subscribe`` may have stored the client's filters
        self.permission = permission
        self.identity = identity
        # the collection, for log messages
        self.subject = subject

    def __call__(self, row: Row, instance: models.Model) -> bool | None:
        """Return what the permission returns. Raises `ProjectCodeFailed` if it raises.

        It does not return False then, which a negated permission would make True.
        """
        permission, identity = self.permission, self.identity
        method = f"{type(permission).__name__}.has_object_permission"
        with calling(self.subject, method, identity.credential):
            result = synchronous(permission.has_object_permission(identity, instance))
            return None if result is None else bool(result)

    def __eq__(self, other: object) -> bool:
        """Return whether both checks decide in the same way: by the same object and state.

        Two identities may be equal although their users were read at different times.
        """
        return (
            isinstance(other, ObjectCheck)
            and self.identity is other.identity
            and type(self.permission) is type(other.permission)
            and _same_state(self.permission, other.permission)
        )

    __hash__ = None  # type: ignore[assignment]  # the state may change


def _same_state(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return bool(vars(one) == vars(other))
    except Exception:  # without ``__dict__``, or values of the project that cannot be compared
        return False


@dataclass(frozen=True, slots=True)
class CombinedCheck:
    """Decides by several decisions, which ``combine`` joins."""

    combine: Callable[[Iterable[bool | None]], bool | None]
    decisions: tuple[Decision, ...]

    def __call__(self, row: Row, instance: models.Model) -> bool | None:
        """Return whether the decisions together show the row."""
        return self.combine(decision.decide(row, instance) for decision in self.decisions)


@dataclass(frozen=True, slots=True)
class InvertedCheck:
    """Allows the rows that a decision does not show."""

    decision: Decision

    def __call__(self, row: Row, instance: models.Model) -> bool | None:
        """Return whether the decision does not show the row."""
        return _negate(self.decision.decide(row, instance))


def check_filters(check: RowCheck | None) -> Iterator[Filter]:
    """Yield the filters by which a check decides, besides the code of permissions."""
    for decision in _decisions(check):
        yield decision.visible
        yield from check_filters(decision.check)


def check_name(check: RowCheck | None) -> str:
    """Return the names of the permissions that a check asks, the same on all servers."""
    match check:
        case None:
            return ""
        case ObjectCheck(permission=permission):
            cls = type(permission)
            return f"{cls.__module__}.{cls.__qualname__}"
        case CombinedCheck(combine):
            name = combine.__name__
        case _:
            name = type(check).__name__
    parts = ", ".join(check_name(decision.check) for decision in _decisions(check))
    return f"{name}({parts})"


def _decisions(check: RowCheck | None) -> tuple[Decision, ...]:
    match check:
        case CombinedCheck(decisions=decisions):
            return decisions
        case InvertedCheck(decision=decision):
            return (decision,)
    return ()


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
    # the client's filter, if it has conditions on related rows, whose keys need queries
    requested: Filter | None = None
    # the paths to related rows, of which clients may use those in ``filters``
    paths: ModelPaths | None = None
    # names of the fields that clients may sort by
    order_fields: frozenset[str] = frozenset()
    # names of the fields that clients may aggregate
    aggregates: frozenset[str] = frozenset()


# converts a return value of `visible_to` to a filter
Parse = Callable[[Visible], Filter]


def evaluate_permission(
    permission: Any,
    identity: Identity,
    filters: ClientFilters,
    parse: Parse,
    collection: Any = None,
) -> Decision | None:
    """Return the rows and fields that a permission allows an identity, or None if it refuses.

    ``permission`` is a class, an instance or a combination. ``filters`` are those of the client.
    ``parse`` converts return values of ``visible_to``. If the permission has an attribute
    ``collection``, it is set to that argument. Raises `ProjectCodeFailed` if a method raises.
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
    return _evaluate(permission, identity, filters, parse, collection)


def _evaluate(
    permission: Any, identity: Identity, filters: ClientFilters, parse: Parse, collection: Any
) -> Decision | None:
    """Return the decision of a single permission, which is no combination of several."""
    cls = permission if isinstance(permission, type) else type(permission)
    subject, credential = f"collection {getattr(collection, 'name', '')!r}", identity.credential

    def calling_method(name: str) -> calling:
        return calling(subject, f"{cls.__name__}.{name}", credential)

    with calling_method("__init__"):
        instance = permission() if isinstance(permission, type) else copy(permission)
        if hasattr(instance, "collection"):
            instance.collection = collection
    with calling_method("can_subscribe"):
        if not _call(instance, "can_subscribe", identity, filters):
            return None
    with calling_method("fields_for"):
        names = _call(instance, "fields_for", identity)
        fields = None if names is None else frozenset(names)
    check: RowCheck | None = None
    if getattr(instance, "has_object_permission", None) is not None:
        check = ObjectCheck(instance, identity, subject)
    with calling_method("visible_to"):
        visible = parse(_call(instance, "visible_to", identity))
    return Decision(visible, fields, check)


def _call(permission: Any, method_name: str, *args: Any) -> Any:
    """Call a method of a permission; if it is missing, call that of `Permission`."""
    method = getattr(permission, method_name, None) or getattr(Permission(), method_name)
    return synchronous(method(*args))


def _and(decisions: list[Decision | None]) -> Decision | None:
    allowed = [decision for decision in decisions if decision is not None]
    if len(allowed) < 2:
        return None
    first, second = allowed
    check: RowCheck | None = None
    if first.check is not None or second.check is not None:
        check = CombinedCheck(_all, tuple(allowed))
    return Decision(first.visible & second.visible, _common_fields(allowed), check)


def _or(decisions: list[Decision | None]) -> Decision | None:
    allowed = [decision for decision in decisions if decision is not None]
    if len(allowed) < 2:
        return allowed[0] if allowed else None
    first, second = allowed
    check: RowCheck | None = None
    if first.check is not None or second.check is not None:
        check = CombinedCheck(_any, tuple(allowed))
    return Decision(first.visible | second.visible, _common_fields(allowed), check)


def _not(decision: Decision | None) -> Decision | None:
    if decision is None:
        return Decision(Filter.everything())
    if decision.shows_all:
        return None
    if decision.check is None:
        return Decision(~decision.visible)
    return Decision(Filter.everything(), None, InvertedCheck(decision))


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
