"""What a subscription may see: the client's wish, within what the permission grants.

Asked when it starts, and again when rights may have changed.
"""

from __future__ import annotations

from hashlib import blake2s, sha256
from typing import Any

import msgspec
from django.conf import settings
from django.utils.encoding import force_bytes
from msgspec.structs import replace

from ..conf import Limits
from ..declarations.authorization import Grant
from ..declarations.registry import UnknownCollection, registry
from ..filters import Filter, FilterLimits, InvalidFilter, parse
from ..identity import Identity
from ..wire.codes import ErrorCode
from ..wire.commands import Subscribe
from .table import EVENTS, AuthorizedQuery

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Subscribe).decode


class SubscriptionRefused(Exception):
    """The subscription is refused: ``code`` and a sentence."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def authorize_query(
    limits: Limits, command: Subscribe, grant: Grant, identity: Identity | None
) -> AuthorizedQuery:
    """What the subscription would see by this grant. Raises `Refusal`."""
    decision = grant.decision
    filter = _filter(limits, command, grant) & decision.visible
    fields = _projection(grant, command.fields)
    _check_changes(command, grant)
    parts = (
        command.collection,
        filter.canonical(),
        fields,
        sorted(command.events or EVENTS),
        command.transitions,
        None if command.changed is None else sorted(command.changed),
        None if identity is None else (identity.project, identity.user_key),
    )
    return AuthorizedQuery(filter, fields, _scope(parts), decision.check)


def rebuild_query(limits: Limits, asked: bytes, identity: Identity) -> AuthorizedQuery | None:
    """The same question when rights may have changed; None for a refusal. May use the ORM."""
    command = _decode(asked)
    try:
        grant = registry.get(command.collection).grant(identity, command.filters or {})
        return None if grant is None else authorize_query(limits, command, grant, identity)
    except (SubscriptionRefused, UnknownCollection):
        return None


def serialize_request(command: Subscribe) -> bytes:
    """What ``view_again`` needs of a request: a fifth of what it takes as objects."""
    asked = replace(command, id=None, subscription=None, since=None, scope=None, snapshot=False)
    return _encode(asked)


def _scope(parts: Any) -> str:
    """A hash of what a subscription may see, the same on every server for the same ``parts``.

    Keyed: what a permission compares is no client's to guess.
    """
    key = sha256(force_bytes(settings.SECRET_KEY)).digest()
    return blake2s(repr(parts).encode(), digest_size=8, key=key, person=b"scope").hexdigest()


def _filter(limits: Limits, command: Subscribe, grant: Grant) -> Filter:
    bounds = FilterLimits(limits.filter_clauses, limits.filter_depth, limits.filter_values)
    try:
        found = parse(command.filters or {}, grant.schema, allowed=grant.filters, limits=bounds)
    except InvalidFilter as error:
        raise SubscriptionRefused(ErrorCode.INVALID_FILTER, str(error)) from None
    if command.document is None:
        return found
    key = next((name for name, spec in grant.schema.items() if spec.primary_key), None)
    if key is None:
        return Filter.nothing()  # it looks secret: nobody may ask by it
    try:
        return found & parse({key: command.document}, grant.schema)
    except InvalidFilter:
        return Filter.nothing()  # no document has such an id: accepted, and silent


def _check_changes(command: Subscribe, grant: Grant) -> None:
    """Old values are known where they are asked for, and only readable fields are named."""
    if (command.transitions or command.changed is not None) and not grant.tracked:
        message = "This collection keeps no old values: neither transitions nor changed."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)
    readable = set(grant.filters if grant.fields is None else grant.fields)
    unknown = sorted(set(command.changed or ()) - readable)
    if unknown:
        message = f"Unknown fields {unknown} in changed; readable are {sorted(readable)}."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)


def _projection(grant: Grant, asked: list[str] | None) -> tuple[str, ...] | None:
    """The fields of ``data``; None for a serializer's whole document."""
    if asked is None:
        return grant.fields
    wanted = set(asked)
    if grant.fields is None:
        return tuple(sorted(wanted))
    unknown = sorted(wanted - set(grant.fields))
    if unknown:
        message = f"Unknown fields {unknown}; readable are {list(grant.fields)}."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)
    return tuple(name for name in grant.fields if name in wanted)
