"""A collection's permission, evaluated part by part, so that the part that decides is named.

Each part is evaluated by `declarations.authorization.evaluate_permission`, as in delivery. Methods
of the project are therefore called several times.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.core.exceptions import FieldError, ImproperlyConfigured
from django.db import models

from ..declarations.authorization import Decision, evaluate_permission
from ..declarations.collection import Collection
from ..filters import ClientFilters, Filter, MakeKeySet, Row
from ..identity import Identity
from ..permissions import And, Not, Or, Visible
from ..relations.errors import UnsupportedQuery
from ..utils.project_code import ProjectCodeFailed
from .clauses import Clauses, names_of_none
from .findings import Finding

_METHODS = ("can_subscribe", "visible_to", "fields_for")


@dataclass(frozen=True, slots=True)
class PermissionTree:
    """A permission or a combination of several, with its decision."""

    # name of the class, or how the parts are combined
    name: str
    # what it allows; None if it refuses, or failed
    decision: Decision | None
    # why it could not be evaluated, or None
    failure: Finding | None = None
    # the return value of ``visible_to``; None for a combination
    visible: Visible = None
    # `And`, `Or` or `Not`; None for a single permission
    combination: type[Any] | None = None
    parts: tuple[PermissionTree, ...] = ()

    def subscription(self) -> Finding:
        """Return whether the permission lets the client subscribe."""
        if self.failure is not None:
            return self.failure
        allows, parts = self.decision is not None, tuple(p.subscription() for p in self.parts)
        if self.combination is None:
            answer = "returns a true value" if allows else "does not return a true value"
            return Finding(allows, f"{self.name}.can_subscribe {answer}")
        if self.combination is Not:
            text = "not to be inverted" if allows else "shows all rows, so its opposite shows none"
            text = f"the opposite of {self.parts[0].name}" + ("" if allows else f": it {text}")
            return Finding(allows, text, tuple(Finding(None, p.text, p.parts) for p in parts))
        text = "all of these must allow it" if self.combination is And else "one must allow it"
        return Finding(allows, text, parts)

    def row(self, clauses: Clauses, row: Row, instance: models.Model | None) -> Finding:
        """Return whether the permission shows a row, and why."""
        if self.decision is None:
            return Finding(False, f"{self.name} refuses the client")
        shows = instance is not None and _shows(self.decision, row, instance)
        if self.combination is None:
            return self._single(self.decision, clauses, row, instance, shows=shows)
        parts = tuple(part.row(clauses, row, instance) for part in self.parts)
        if self.combination is Not:
            unknown = "" if shows or parts[0].passes else ", of which the result is not known"
            text = f"the opposite of {self.parts[0].name}{unknown}"
            inner = tuple(Finding(None, part.text, part.parts) for part in parts)
            if not shows and parts[0].passes:
                text = f"{text}, which shows the row"
            return Finding(shows, text, inner)
        text = "all of these must show the row" if self.combination is And else "one must show it"
        return Finding(shows, text, parts)

    def _single(
        self,
        decision: Decision,
        clauses: Clauses,
        row: Row,
        instance: models.Model | None,
        *,
        shows: bool,
    ) -> Finding:
        matches = decision.visible.matches(row)
        if self.visible is True:
            parts = [Finding(True, f"{self.name}.visible_to returns True")]
        elif not isinstance(self.visible, Mapping):
            parts = [Finding(matches, f"{self.name}.visible_to returns {self.visible}")]
        else:
            inner = clauses.findings(decision.visible, row)
            names = sorted(set(names_of_none(self.visible)))
            if names:
                text = f"{', '.join(names)} compared with None, which matches no row"
                inner = (*inner, Finding(None if matches else False, text))
            parts = [Finding(matches, f"{self.name}.visible_to", inner)]
        if decision.check is not None:
            parts.append(self._check(decision, row, instance, asked=matches))
        verb = "shows" if shows else "does not show"
        return Finding(shows, f"{self.name} {verb} the row", tuple(parts))

    def _check(
        self, decision: Decision, row: Row, instance: models.Model | None, *, asked: bool
    ) -> Finding:
        method = f"{self.name}.has_object_permission"
        if instance is None:
            return Finding(False, f"{method} cannot be asked: the model refuses the row's values")
        if not asked:
            return Finding(None, f"{method} is not asked")
        assert decision.check is not None
        try:
            result = decision.check(row, instance)
        except ProjectCodeFailed as failure:
            return describe_failure(failure)
        return Finding(bool(result), f"{method} returns {result}")


def _shows(decision: Decision, row: Row, instance: models.Model) -> bool:
    try:
        return decision.sees(row, instance)
    except ProjectCodeFailed:
        return False


def evaluate_tree(
    collection: Collection,
    identity: Identity,
    filters: ClientFilters,
    clauses: Clauses,
    make_key_set: MakeKeySet,
) -> PermissionTree:
    """Return the permission of a collection with the decisions of all its parts. Uses the ORM."""
    evaluate = partial(
        _evaluate,
        collection=collection,
        identity=identity,
        filters=filters,
        key_set=clauses.noting(make_key_set),
    )
    if collection.permission is None:
        return evaluate(collection)
    own = type(collection)
    is_plain = all(getattr(own, name) is getattr(Collection, name) for name in _METHODS)
    if is_plain and not hasattr(collection, "has_object_permission"):
        return evaluate(collection.loaded_permission)
    return evaluate(And(collection.loaded_permission, collection))


def _evaluate(
    permission: Any,
    *,
    collection: Collection,
    identity: Identity,
    filters: ClientFilters,
    key_set: MakeKeySet,
) -> PermissionTree:
    returned: list[Visible] = []

    def parse(visible: Visible) -> Filter:
        returned.append(visible)
        return collection.parse_visible(visible, key_set)

    evaluate = partial(
        _evaluate, collection=collection, identity=identity, filters=filters, key_set=key_set
    )
    parts: tuple[PermissionTree, ...] = ()
    combination: type[Any] | None = None
    match permission:
        case And(parts=inner) | Or(parts=inner):
            combination, parts = type(permission), tuple(map(evaluate, inner))
        case Not(part=part):
            combination, parts = Not, (evaluate(part),)
    name = _name(permission)
    try:
        decision = evaluate_permission(permission, identity, filters, parse, collection)
    except ProjectCodeFailed as failure:
        return PermissionTree(name, None, describe_failure(failure), None, combination, parts)
    visible = returned[0] if combination is None and returned else None
    return PermissionTree(name, decision, None, visible, combination, parts)


def _name(permission: Any) -> str:
    match permission:
        case And(parts=parts):
            return f"({' & '.join(map(_name, parts))})"
        case Or(parts=parts):
            return f"({' | '.join(map(_name, parts))})"
        case Not(part=part):
            return f"~{_name(part)}"
    cls = permission if isinstance(permission, type) else type(permission)
    # an entry of the setting has a class without a name of its own
    is_entry = issubclass(cls, Collection) and cls.__name__ == f"Settings{Collection.__name__}"
    return "collection" if is_entry else cls.__name__


# exceptions whose messages are this app's own or Django's, and name no values of the project
_SHOWN = (ImproperlyConfigured, FieldError, UnsupportedQuery)


def describe_failure(failure: ProjectCodeFailed) -> Finding:
    """Return a finding for an exception of the project's code, with the line that raised it.

    The message is left out unless it is about the declaration: it may contain values.
    """
    cause = failure.__cause__
    if cause is None:
        return Finding(False, str(failure))
    text = f"{failure}: {type(cause).__name__}"
    if isinstance(cause, _SHOWN):
        return Finding(False, f"{text}: {cause}")
    frames = traceback.extract_tb(cause.__traceback__)
    if frames:
        last = frames[-1]
        text = f"{text} at {Path(last.filename).name}:{last.lineno} (the log has the message)"
    return Finding(False, text)
