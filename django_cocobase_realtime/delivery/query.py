"""What a subscription may see: the client's request within what the permission grants.

Determined when the subscription starts, and again when permissions may have changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2s, sha256
from typing import Any

import msgspec
from django.conf import settings
from django.utils.encoding import force_bytes
from msgspec.structs import replace

from ..conf import Limits
from ..declarations.authorization import Grant, RowCheck
from ..declarations.registry import UnknownCollection, registry
from ..declarations.serialization import split_document_id
from ..filters import Filter, FilterLimits, InvalidFilter, parse
from ..identity import Identity
from ..wire.codes import ErrorCode
from ..wire.commands import Subscribe

ALL_EVENTS = frozenset({"created", "updated", "deleted"})

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Subscribe).decode


@dataclass(frozen=True, slots=True)
class AuthorizedQuery:
    """Rows and fields that a subscription may see."""

    # what the client asked for AND what the permission allows
    filter: Filter
    # names in ``data``; None for a serializer's whole document
    fields: tuple[str, ...] | None
    # hash of everything that decides what is visible: a cursor is valid for one scope
    scope: str = ""
    # decides about each row that the filter matches, if the permission does that
    check: RowCheck | None = None


class SubscriptionRefused(Exception):
    """A subscription was refused; the message says why."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def authorize_query(
    limits: Limits, command: Subscribe, grant: Grant, identity: Identity | None
) -> AuthorizedQuery:
    """Return what a request may see under a grant. Raises `SubscriptionRefused`."""
    decision = grant.decision
    filter = _filter(limits, command, grant) & decision.visible
    fields = _projection(grant, command.fields)
    _check_changes(command, grant)
    scope = _scope(
        (
            grant.stream,
            filter.canonical(),
            fields,
            sorted(command.events or ALL_EVENTS),
            command.transitions,
            None if command.changed is None else sorted(command.changed),
            None if identity is None else (identity.project, identity.user_key),
        )
    )
    return AuthorizedQuery(filter, fields, scope, decision.check)


def serialize_request(command: Subscribe) -> bytes:
    """Return what `rebuild_query` needs of a request, in a fifth of the objects' memory."""
    request = replace(command, id=None, subscription=None, since=None, scope=None, snapshot=False)
    return _encode(request)


def rebuild_query(limits: Limits, request: bytes, identity: Identity) -> AuthorizedQuery | None:
    """Authorize a serialized request again; None if it is refused now. May use the ORM."""
    command = _decode(request)
    try:
        grant = registry.get(command.collection).grant(identity, command.filters or {})
        return None if grant is None else authorize_query(limits, command, grant, identity)
    except (SubscriptionRefused, UnknownCollection):
        return None


def _scope(parts: tuple[Any, ...]) -> str:
    """Return a hash that is the same on every server for the same parts.

    It is keyed, so that clients cannot guess the values that a permission compares.
    """
    key = sha256(force_bytes(settings.SECRET_KEY)).digest()
    return blake2s(repr(parts).encode(), digest_size=8, key=key, person=b"scope").hexdigest()


def _filter(limits: Limits, command: Subscribe, grant: Grant) -> Filter:
    bounds = FilterLimits(limits.filter_clauses, limits.filter_depth, limits.filter_values)
    try:
        filter = parse(command.filters or {}, grant.schema, allowed=grant.filters, limits=bounds)
    except InvalidFilter as error:
        raise SubscriptionRefused(ErrorCode.INVALID_FILTER, str(error)) from None
    if command.document is None:
        return filter
    try:
        key: list[Any] = [command.document]
        if len(grant.key) > 1:
            key = split_document_id(str(command.document))
        conditions = dict(zip(grant.key, key, strict=True))
        # not within ``allowed``: whoever may watch the collection knows the ids. A key that looks
        # secret is not in the schema, and cannot be asked for.
        return filter & parse(conditions, grant.schema)
    except ValueError:
        return Filter.nothing()  # no document can have such an id: accepted, without events


def _check_changes(command: Subscribe, grant: Grant) -> None:
    """Refuse requests for old values that are not known, or for fields that are not readable."""
    if (command.transitions or command.changed is not None) and not grant.tracked:
        message = "This collection keeps no old values: neither transitions nor changed."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)
    readable = set(grant.filters if grant.fields is None else grant.fields)
    unknown = sorted(set(command.changed or ()) - readable)
    if unknown:
        message = f"Unknown fields {unknown} in changed; readable are {sorted(readable)}."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)


def _projection(grant: Grant, requested: list[str] | None) -> tuple[str, ...] | None:
    """Return the names in ``data``; None for a serializer's whole document."""
    if requested is None:
        return grant.fields
    names = set(requested)
    if grant.fields is None:
        return tuple(sorted(names))
    unknown = sorted(names - set(grant.fields))
    if unknown:
        message = f"Unknown fields {unknown}; readable are {list(grant.fields)}."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)
    return tuple(name for name in grant.fields if name in names)
