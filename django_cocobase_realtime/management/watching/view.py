"""The events of a collection that are shown: all that match a filter, or those that a user gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ...auth.users import refresh_user
from ...conf import conf
from ...declarations.collection import Collection
from ...declarations.soft_delete import apply_soft_delete
from ...delivery.cohort import FrameSpec
from ...delivery.event_frames import data_of
from ...delivery.incomplete_images import find_undecidable
from ...delivery.query import ALL_EVENTS, AuthorizedQuery, authorize_query
from ...events import Change, Image
from ...filters import InvalidFilter, parse
from ...identity import Identity
from ...relations.key_sets import KeySets
from ...transport.connection import NATIVE
from ...utils.project_code import ProjectCodeFailed
from ...wire.commands import Subscribe


class NotAllowed(Exception):
    """The user may not subscribe to the collection."""


@dataclass(frozen=True, slots=True)
class ShownEvent:
    """An event as it is printed."""

    change: Change
    # created, updated, deleted, entered or left
    event: str
    # the document's data; None if the reader must not see it
    data: Mapping[str, Any] | None
    # names of the changed fields that are shown; None if they are not known
    changed: tuple[str, ...] | None
    # old values of changed fields, for the operator only
    old: Mapping[str, Any]


class View(Protocol):
    """A rule that decides which events are shown."""

    def refresh(self) -> None:
        """Read the permissions again, before a batch of events."""

    def show(self, change: Change) -> ShownEvent | None:
        """Return an event as it is shown, or None."""


class _FilteredView:
    """Events that match the filter of an authorized query."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        # set by `refresh`
        self._query: AuthorizedQuery | None = None

    def show(self, change: Change) -> ShownEvent | None:
        """Return an event as it is shown, or None."""
        query, collection = self._query, self._collection
        if query is None or find_undecidable(collection, change, [query]):
            return None
        visible = apply_soft_delete(collection.decode(change), collection)
        if visible is None:
            return None
        matched, matches = (self._matches(query, i) for i in (visible.before, visible.after))
        spec = FrameSpec(NATIVE, collection.name, query.fields, (), ALL_EVENTS, True, None)
        event = spec.event_for(visible, matched, matches)
        return None if event is None else self._shown(query, visible, event)

    def _matches(self, query: AuthorizedQuery, image: Image | None) -> bool:
        if image is None:
            return False
        collection = self._collection
        row = collection.row(image)
        if query.check is None:
            return query.filter.matches(row)
        if not query.candidates.matches(row):
            return False
        codec, using = collection.codec, collection.database
        instance = codec.to_instance(collection.model_class, image, using, decoded=True)
        try:
            return bool(query.check(row, instance)) and query.filter.matches(row)
        except ProjectCodeFailed as failure:
            failure.log()
            return False  # as for clients

    def _shown(self, query: AuthorizedQuery, change: Change, event: str) -> ShownEvent:
        if event == "left" or change.has_failed_document:
            return ShownEvent(change, event, None, None, {})
        data = data_of(change, query.fields)
        changed = change.changed
        if changed is not None:
            changed = tuple(name for name in changed if name in (query.fields or data))
        return ShownEvent(change, event, data, changed, {})


class OperatorView(_FilteredView):
    """All events of a collection that match a filter, whatever permissions say."""

    def __init__(
        self, collection: Collection, filters: Mapping[str, Any], fields: list[str] | None
    ) -> None:
        """Raise `InvalidFilter` or ``ValueError`` if a name or a value is not valid."""
        super().__init__(collection)
        known = {*collection.schema, *collection.related_fields, *(collection.readable or ())}
        unknown = sorted(set(fields or ()) - known)
        if unknown and collection.readable is not None:
            raise ValueError(f"Unknown fields {unknown}; known are {sorted(known)}.")
        names = collection.readable if fields is None else tuple(fields)
        self._query = AuthorizedQuery(parse(filters, collection.schema), names)

    def refresh(self) -> None:
        """Do nothing, because no permission is asked."""

    def _shown(self, query: AuthorizedQuery, change: Change, event: str) -> ShownEvent:
        # unlike a client, the operator sees the row after it has left the filter
        shown = super()._shown(query, change, "updated" if event == "left" else event)
        before = change.before if change.op == "updated" else None
        old = {n: before[n] for n in shown.changed or () if n in before} if before else {}
        return replace(shown, event=event, old=old)


class UserView(_FilteredView):
    """The events that a user gets, by the permissions as they are when the events are read."""

    def __init__(
        self,
        collection: Collection,
        filters: Mapping[str, Any],
        fields: list[str] | None,
        identity: Identity,
    ) -> None:
        super().__init__(collection)
        self._command = Subscribe(collection=collection.name, filters=dict(filters), fields=fields)
        self._identity = identity

    def refresh(self) -> None:
        """Evaluate the permission again.

        Raises `NotAllowed`, `SubscriptionRefused` and `ProjectCodeFailed`.
        """
        self._query = None
        user = refresh_user(self._identity.user)
        if user is None:
            raise NotAllowed("The user is not active any more.")
        identity = replace(self._identity, user=user)
        key_set = KeySets().maker(self._collection)
        grant = self._collection.grant(identity, self._command.filters or {}, key_set)
        if grant is None:
            raise NotAllowed(f"The user may not subscribe to {self._collection.name!r}.")
        self._query = authorize_query(conf.limits, self._command, grant, identity, key_set)


def parse_filters(texts: list[str]) -> dict[str, str]:
    """Return conditions such as ``status=open`` as a filter. Raises `InvalidFilter`."""
    filters: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InvalidFilter(f"{text!r} must have the form field=value.")
        filters[name] = value
    return filters
