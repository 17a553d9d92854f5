"""Authorized queries: what a subscription may see, given its request and the client's grant.

The query of a subscription is made when it starts, and again when permissions may have changed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as with_fields
from hashlib import blake2s, sha256
from typing import Any

import msgspec
from django.conf import settings
from django.utils.encoding import force_bytes
from msgspec.structs import replace

from ..declarations.authorization import Grant, RowCheck, check_filters, check_name
from ..declarations.collection import Collection
from ..declarations.registry import UnknownCollection, registry
from ..declarations.serialization import split_document_id
from ..filters import (
    Filter,
    FilterLimits,
    InvalidFilter,
    KeySet,
    MakeKeySet,
    estimate_cost,
    parse,
)
from ..filters.order import InvalidOrder, parse_order
from ..identity import Identity
from ..live_queries.requests import InvalidAggregate, parse_aggregate
from ..options import Limits
from ..wire.codes import ErrorCode
from ..wire.commands import Subscribe
from .moments import differ_by_time, has_moments

logger = logging.getLogger(__name__)

# events that a subscription gets by default
ALL_EVENTS = frozenset({"created", "updated", "deleted"})

# collections for which `allow_the_same` has logged a warning
_warned: set[str] = set()

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Subscribe).decode


@dataclass(frozen=True, slots=True)
class AuthorizedQuery:
    """The rows and fields that a subscription may see."""

    # the client's filter, combined by AND with that of the permission
    filter: Filter
    # names of the fields in a document's data; None for all of a serializer
    fields: tuple[str, ...] | None
    # hash of everything that decides what is visible, with the keys of key sets when the query was
    # made; a cursor is valid with one scope only, see `current_scope`
    scope: str = ""
    # a row permission, which decides about each row that ``permitted`` matches
    check: RowCheck | None = None
    # the filter of the permission alone; None without a row permission, or if it is ``filter``
    permitted: Filter | None = None
    # Unix time at which it was made; 0 if the filter of the permission contains no times
    made_at: float = 0.0
    # estimated microseconds that the client's filter costs per event
    cost: float = 0.0
    # hash of everything that decides what is visible, apart from filters
    scope_base: str = ""

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The filters that decide what is visible, those of the row permission included."""
        return (self.filter, *check_filters(self.check))

    @property
    def rights(self) -> tuple[str, ...]:
        """Texts of all that decides what is visible, without the keys of key sets.

        Two queries of one process, made for one request, allow the same if their rights are equal.
        """
        return (self.scope_base, *(filter.canonical() for filter in self.filters))

    def key_sets(self) -> tuple[KeySet, ...]:
        """Return the key sets in `filters`, each once."""
        return tuple(dict.fromkeys(s for filter in self.filters for s in filter.key_sets()))

    @property
    def candidates(self) -> Filter:
        """The filter for the rows that the row permission is asked about.

        The client's filter is not part of it. Otherwise the client could measure whether the
        permission was asked about a hidden row, and thereby learn which filters the row matches.
        """
        return self.filter if self.permitted is None else self.permitted


class SubscriptionRefused(Exception):
    """A subscription was refused. The message is for the client."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        # error code of the protocol
        self.code = code


def current_scope(query: AuthorizedQuery) -> str:
    """Return the scope of a query with the keys that its key sets have now."""
    return _hash((query.scope_base, *(filter.scope_text() for filter in query.filters)))


def authorize_query(
    limits: Limits,
    command: Subscribe,
    grant: Grant,
    identity: Identity | None,
    key_set: MakeKeySet | None = None,
) -> AuthorizedQuery:
    """Return the query for a request of a client that has this grant.

    ``key_set`` makes the key sets of the client's filter if the grant was made without them. It
    uses the ORM, so it must not be given in an event loop.

    Raises `SubscriptionRefused` if the request is not valid, or asks for more than is granted.
    """
    decision = grant.decision
    requested = requested_filter(limits, command, grant, key_set)
    filter = requested & decision.visible
    # the row before the change and that after it are tested
    has_two = command.transitions or command.window or command.aggregate
    rows = 2 if has_two or decision.check is not None else 1
    cost = estimate_cost(requested, grant.schema) * rows
    fields = _projection(grant, command.fields)
    _check_changes(command, grant)
    _check_live(command, grant)
    scope_base = _hash(
        (
            grant.stream,
            fields,
            sorted(command.events or ALL_EVENTS),
            command.transitions,
            None if command.changed is None else sorted(command.changed),
            check_name(decision.check),
            command.window and (command.window, sorted(grant.order_fields)),
            command.aggregate and (command.aggregate, sorted(grant.aggregates)),
            None if identity is None else (identity.project, identity.user_key),
        )
    )
    now = time.time()
    visible = (decision.visible, *check_filters(decision.check))
    query = AuthorizedQuery(
        filter,
        fields,
        check=decision.check,
        permitted=None if decision.check is None else decision.visible,
        made_at=now if any(has_moments(part.root, now) for part in visible) else 0.0,
        cost=cost,
        scope_base=scope_base,
    )
    return with_fields(query, scope=current_scope(query))


def allow_the_same(old: AuthorizedQuery, new: AuthorizedQuery, collection: str) -> bool:
    """Return whether two queries, made for one request at different times, allow the same.

    That the permission compares with the current time makes no difference.
    """
    if old.rights == new.rights:
        return True
    if not (old.made_at and new.made_at) or old.scope_base != new.scope_base:
        return False
    elapsed = new.made_at - old.made_at
    if not all(
        differ_by_time(before.root, after.root, elapsed, new.made_at)
        for before, after in zip(old.filters, new.filters, strict=True)
    ):
        return False
    if collection not in _warned:
        _warned.add(collection)
        logger.warning(
            "visible_to of collection %r (permission %r) compares with the current time. The time "
            "stays that of the moment when a subscription started, and no event is sent when a row "
            "becomes visible because time passes. Compare times in has_object_permission.",
            collection,
            registry.get(collection).permission,
        )
    return True


def serialize_request(command: Subscribe) -> bytes:
    """Return a request as bytes, for `rebuild_query`; they take a fifth of the objects' memory."""
    request = replace(command, id=None, subscription=None, since=None, scope=None, snapshot=False)
    return _encode(request)


def requested_filters(request: bytes) -> dict[str, Any]:
    """Return the client's filter of a serialized request."""
    return (_decode(request).filters or {}) if request else {}


def requested_document(request: bytes) -> str | None:
    """Return the id of the only document that a serialized request is about, or None."""
    document = _decode(request).document if request else None
    return None if document is None else str(document)


def rebuild_query(
    limits: Limits,
    request: bytes,
    identity: Identity,
    key_set: Callable[[Collection], MakeKeySet] | None = None,
) -> AuthorizedQuery | None:
    """Evaluate the permission again for a serialized request; return None if it is now refused.

    ``key_set`` makes the key sets of a collection, see `Collection.grant`. Uses the ORM, so it must
    not be called in an event loop.
    """
    command = _decode(request)
    try:
        collection = registry.get(command.collection)
        make = None if key_set is None else key_set(collection)
        grant = collection.grant(identity, command.filters or {}, make)
        return None if grant is None else authorize_query(limits, command, grant, identity, make)
    except (SubscriptionRefused, UnknownCollection):
        return None


def _hash(parts: tuple[Any, ...]) -> str:
    """Return a hash of the parts, which is the same on every server.

    It is keyed with the secret key. Otherwise clients could find out the values in a permission's
    filter by hashing guesses.
    """
    key = sha256(force_bytes(settings.SECRET_KEY)).digest()
    return blake2s(repr(parts).encode(), digest_size=8, key=key, person=b"scope").hexdigest()


def requested_filter(
    limits: Limits, command: Subscribe, grant: Grant, key_set: MakeKeySet | None = None
) -> Filter:
    """Return the client's filter, which is combined with that of the permission.

    ``key_set`` is that of `authorize_query`. Raises `SubscriptionRefused`.
    """
    bounds = FilterLimits(limits.filter_clauses, limits.filter_depth, limits.filter_values)
    try:
        filter = grant.requested or parse(
            command.filters or {},
            grant.schema,
            allowed=grant.filters,
            limits=bounds,
            key_set=key_set,
            paths=grant.paths,
        )
    except InvalidFilter as error:
        raise SubscriptionRefused(ErrorCode.INVALID_FILTER, str(error)) from None
    if command.document is None:
        return filter
    try:
        key: list[Any] = [command.document]
        if len(grant.key) > 1:
            key = split_document_id(str(command.document))
        conditions = dict(zip(grant.key, key, strict=True))
        # not within ``allowed``: clients that may watch the collection know the ids. A key that
        # looks secret is not in the schema, and cannot be asked for.
        return filter & parse(conditions, grant.schema)
    except ValueError:
        return Filter.nothing()  # no document can have such an id: accepted, without events


def _check_changes(command: Subscribe, grant: Grant) -> None:
    """Refuse requests for old values that are not known, or for fields that are not readable."""
    if (command.transitions or command.changed is not None) and not grant.tracked:
        message = "transitions and changed are not available: this collection keeps no old values."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)
    readable = set(grant.filters if grant.fields is None else grant.fields)
    unknown = sorted(set(command.changed or ()) - readable)
    if unknown:
        message = f"Unknown fields {unknown} in changed; readable fields are {sorted(readable)}."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)


def _check_live(command: Subscribe, grant: Grant) -> None:
    """Refuse live queries of fields that are not readable, or of rows that are checked by code.

    Both may be the result of a change of rights.
    """
    window, aggregate = command.window, command.aggregate
    if grant.decision.check is not None and (window is not None or aggregate is not None):
        message = (
            "The permission of this collection decides about each row by has_object_permission."
        )
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)
    try:
        if window is not None:
            parse_order(window.order, grant.schema, grant.order_fields)
        if aggregate is not None:
            parse_aggregate(aggregate, grant.schema, grant.aggregates, grant.filters)
    except (InvalidOrder, InvalidAggregate) as error:
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, str(error)) from None


def _projection(grant: Grant, requested: list[str] | None) -> tuple[str, ...] | None:
    """Return the names of the fields in a document's data; None for all of a serializer."""
    if requested is None:
        return grant.fields
    names = set(requested)
    if grant.fields is None:
        return tuple(sorted(names))
    unknown = sorted(names - set(grant.fields))
    if unknown:
        message = f"Unknown fields {unknown}; readable fields are {list(grant.fields)}."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)
    return tuple(name for name in grant.fields if name in names)
