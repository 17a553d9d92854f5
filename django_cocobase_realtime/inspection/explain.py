"""Explanations why a client gets a document or an event, or why not.

`explain` goes through the steps of a subscription and of a delivery with the functions that those
use. The verdict is what these functions return; the findings say which part of them decided. All
permissions, key sets and rows are those of now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ..conf import conf
from ..declarations.authorization import Grant
from ..declarations.collection import Collection
from ..declarations.image_fields import field_aliases
from ..declarations.registry import UnknownCollection, registry
from ..delivery.query import (
    ALL_EVENTS,
    AuthorizedQuery,
    SubscriptionRefused,
    authorize_query,
    requested_filter,
)
from ..delivery.subscription import Subscription, SubscriptionRequest
from ..filters import ClientFilters, Filter
from ..identity import Identity
from ..relations.key_sets import KeySets
from ..transport.connection import Connection
from ..transport.writer import Writer
from ..utils.project_code import ProjectCodeFailed
from ..wire.codes import CloseCode
from ..wire.commands import EventName, Subscribe
from .clauses import Clauses
from .documents import DocumentSteps
from .findings import Finding, first_reason
from .permission_trees import PermissionTree, describe_failure, evaluate_tree


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the subscription that an explanation is about, as in ``subscribe``."""

    collection: str
    filters: Mapping[str, Any] = field(default_factory=dict)
    fields: Sequence[str] | None = None
    events: Sequence[EventName] | None = None
    changed: Sequence[str] | None = None
    transitions: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict about one document or event, and the findings of all steps up to it."""

    # name of the event that the client gets; None if it gets nothing
    event: str | None
    findings: tuple[Finding, ...]

    @property
    def is_delivered(self) -> bool:
        """Whether the client gets it."""
        return self.event is not None

    @property
    def reason(self) -> str:
        """The sentence about the step that decided, without a full stop."""
        if self.event is not None:
            return f"the client gets {self.event!r}"
        return first_reason(self.findings) or "no step let it pass"

    def as_json(self) -> dict[str, Any]:
        """Return the explanation as JSON values."""
        return {
            "delivered": self.is_delivered,
            "event": self.event,
            "reason": self.reason,
            "steps": [finding.as_json() for finding in self.findings],
        }


def explain(
    identity: Identity, request: Request, document: str | None, event: str | None = None
) -> Explanation:
    """Explain whether an identity gets a document, or a logged event, by a subscription.

    Without ``event``, the question is whether it sees the row as it is now, and would get an
    update of it. ``event`` is the number of a logged event, its cursor, or ``"last"`` for the last
    one of the document; ``document`` may then be None. Calls the project's permissions and uses
    the ORM: not for event loops. Raises exceptions that mean that a database does not answer.
    """
    findings: list[Finding] = []
    collection = _find_collection(request.collection, findings)
    if collection is None or not _admits(collection, identity, findings):
        return Explanation(None, tuple(findings))
    steps = _Authorization(collection, identity, request).run(findings)
    if steps is None:
        return Explanation(None, tuple(findings))
    name = steps.now(document) if event is None else steps.logged(event, document)
    return Explanation(name, (*findings, *steps.findings))


def _find_collection(name: str, findings: list[Finding]) -> Collection | None:
    try:
        collection = registry.get(name)
    except UnknownCollection:
        names = ", ".join(sorted(other.name for other in registry)) or "none"
        text = f"collection: there is no collection {name!r}; those declared are {names}"
        findings.append(Finding(False, text))
        return None
    model = collection.model_class._meta.label
    former = "" if name == collection.name else f", under its former name {name!r}"
    findings.append(Finding(True, f"collection: {collection.name!r} shows {model}{former}"))
    return collection


def _admits(collection: Collection, identity: Identity, findings: list[Finding]) -> bool:
    admits = collection.admits(identity)
    if identity.is_anonymous and collection.public is not True:
        text = "public: the collection does not have public = True, so visitors may not use it"
        findings.append(Finding(False, text))
    elif not identity.scope.has_collection((collection.name, *collection.aliases)):
        allowed = ", ".join(sorted(identity.scope.collections or ())) or "none"
        text = f"scope: the credential is restricted to the collections {allowed}"
        findings.append(Finding(False, text))
    elif not admits:
        findings.append(Finding(False, "the collection does not admit the credential"))
    return admits


class _Authorization:
    """The steps from the permission to the query of a subscription."""

    def __init__(self, collection: Collection, identity: Identity, request: Request) -> None:
        self._collection = collection
        self._identity = identity
        self._request = request
        self._clauses = Clauses(collection)
        # makes key sets with the keys of now, which no other explanation shares
        self._make = self._clauses.noting(KeySets().maker(collection))

    def run(self, findings: list[Finding]) -> DocumentSteps | None:
        """Return the steps that judge rows, or None if the subscription is refused."""
        collection = self._collection
        aliases = field_aliases(collection.concrete_model)
        filters = ClientFilters(self._request.filters, collection.schema, aliases, collection.paths)
        tree = evaluate_tree(self._collection, self._identity, filters, self._clauses, self._make)
        grant = self._grant(tree, findings)
        if grant is None:
            return None
        authorized = self._query(grant, findings)
        if authorized is None:
            return None
        query, requested = authorized
        findings.append(self._fields(query))
        subscription = self._subscription(query, grant)
        return DocumentSteps(self._collection, subscription, requested, tree, self._clauses)

    def _grant(self, tree: PermissionTree, findings: list[Finding]) -> Grant | None:
        failure: Finding | None = None
        try:
            grant = self._collection.grant(self._identity, self._request.filters, self._make)
        except ProjectCodeFailed as error:
            grant, failure = None, describe_failure(error)
        step = tree.subscription()
        if failure is not None:
            # the client's filter on related rows may fail as well
            part = step if step.passes is False else failure
            findings.append(Finding(False, "permission: the client gets an error", (part,)))
            return None
        is_refused = grant is None
        text = "permission: refuses the client" if is_refused else "permission: may be subscribed"
        findings.append(Finding(not is_refused, text, (step,)))
        return grant

    def _query(
        self, grant: Grant, findings: list[Finding]
    ) -> tuple[AuthorizedQuery, Filter] | None:
        request, limits = self._request, conf.limits
        command = Subscribe(
            collection=request.collection,
            filters=dict(request.filters),
            fields=None if request.fields is None else list(request.fields),
            events=None if request.events is None else list(request.events),
            changed=None if request.changed is None else list(request.changed),
            transitions=request.transitions,
        )
        try:
            query = authorize_query(limits, command, grant, self._identity, self._make)
            requested = requested_filter(limits, command, grant, self._make)
        except SubscriptionRefused as refusal:
            text = f"request: refused with {refusal.code.value}: {refusal}".rstrip(".")
            findings.append(Finding(False, text))
            return None
        if query.cost > limits.filter_cost:
            text = (
                f"request: refused with limit_exceeded: the filter costs {query.cost:.0f} µs per "
                f"event, more than LIMITS['filter_cost']"
            )
            findings.append(Finding(False, text))
            return None
        return query, requested

    def _fields(self, query: AuthorizedQuery) -> Finding:
        """Return which fields the document has, and which ones the permission leaves out."""
        readable = self._collection.readable
        if query.fields is None:
            return Finding(None, "fields: all that the serializer returns")
        text = f"fields: {', '.join(query.fields) or 'none, the document has its id only'}"
        hidden = [name for name in readable or () if name not in query.fields]
        if hidden:
            text = f"{text}; left out by the permission or the request: {', '.join(hidden)}"
        return Finding(None, text)

    def _subscription(self, query: AuthorizedQuery, grant: Grant) -> Subscription:
        request = self._request
        connection = Connection("", cast("Writer", None), _close)
        connection.identity = self._identity
        return Subscription(
            connection,
            SubscriptionRequest(
                name=request.collection,
                collection=request.collection,
                events=ALL_EVENTS if request.events is None else frozenset(request.events),
                transitions=request.transitions,
                changed=None if request.changed is None else frozenset(request.changed),
                stream=grant.stream,
            ),
            query,
        )


def _close(code: CloseCode, retry_after_ms: int | None = None) -> None:
    """Do nothing: there is no socket."""
