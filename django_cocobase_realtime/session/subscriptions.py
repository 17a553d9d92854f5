"""``subscribe`` and ``unsubscribe``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ..conf import Limits
from ..fanout.subscriptions import EVENTS, Begin, Subscription, View, Wanted
from ..filters import Filter, FilterLimits, InvalidFilter, parse
from ..grants import Grant
from ..identity import Identity
from ..log.cursor import Position, encode
from ..log.read import Extent
from ..registry import UnknownCollection, registry
from ..wire import native
from ..wire.codes import ErrorCode
from ..wire.messages import Subscribe, Unsubscribe
from .effects import Attach, Authorize, Detach, Prepare, Send, Steps
from .resume import Resync, resume, scope_of

if TYPE_CHECKING:
    from .machine import Session


class Refusal(Exception):
    """The subscription is refused: ``code`` and a sentence."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def subscribe(session: Session, command: Subscribe) -> Steps:
    """Watch a collection. One of the same name is replaced; a refused one leaves it alone."""
    connection = session.connection
    rights = connection.rights
    try:
        _check_names(session, command)
        grant: Grant | None = yield Authorize(command.collection, command.filters or {})
        if grant is None:
            message = f"There is no collection {command.collection!r} that you may watch."
            raise Refusal(ErrorCode.UNKNOWN_COLLECTION, message)
        view = view_of(session.limits, command, grant, session.identity)
        wanted = _wanted(session, command, grant)
    except Refusal as refusal:
        yield session.error(refusal.code, str(refusal), command.id)
        return
    subscription = Subscription(
        connection=connection,
        name=command.subscription or command.collection,
        collection=command.collection,
        view=view,
        events=EVENTS if command.events is None else frozenset(command.events),
        transitions=command.transitions,
        changed=None if command.changed is None else frozenset(command.changed),
        again=partial(_again, session.limits, command),
        rights=rights,
    )
    extent: Extent | None = yield Prepare(command.collection)
    scope = view.scope
    after, answer = _resume(session, command, extent, scope)
    reply = native.reply(
        "subscribed",
        command.id,
        collection=command.collection,
        subscription=subscription.name,
        filters=command.filters or {},
        scope=scope,
        durable=extent is not None,
        **answer,
    )
    if extent is not None:
        seq = extent.head if after is None else after.seq
        reply["cursor"] = encode(command.collection, extent.epoch, seq)
    # the reply first: what brings the subscription up to date follows it
    yield Send(reply)
    if after is not None:
        yield Attach(subscription, Begin(after))
    else:
        yield Attach(subscription, None if wanted is None else Begin(wanted=wanted))


def view_of(limits: Limits, command: Subscribe, grant: Grant, identity: Identity | None) -> View:
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
    return View(filter, fields, scope_of(parts), decision.check)


def _again(limits: Limits, command: Subscribe, identity: Identity) -> View | None:
    """The same question when rights may have changed. In a worker thread: may use the ORM."""
    try:
        grant = registry.get(command.collection).grant(identity, command.filters or {})
        return None if grant is None else view_of(limits, command, grant, identity)
    except (Refusal, UnknownCollection):
        return None


def _check_names(session: Session, command: Subscribe) -> None:
    limits, held = session.limits, session.connection.subscriptions
    if session.too_long(command.collection) or session.too_long(command.subscription):
        message = f"Names may have {limits.name_bytes} bytes at most."
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message)
    name = command.subscription or command.collection
    if name not in held and len(held) >= limits.subscriptions:
        message = f"A connection may have {limits.subscriptions} subscriptions at most."
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message)


def _filter(limits: Limits, command: Subscribe, grant: Grant) -> Filter:
    bounds = FilterLimits(limits.filter_clauses, limits.filter_depth, limits.filter_values)
    try:
        found = parse(command.filters or {}, grant.schema, allowed=grant.filters, limits=bounds)
    except InvalidFilter as error:
        raise Refusal(ErrorCode.INVALID_FILTER, str(error)) from None
    if command.document is None:
        return found
    key = next(name for name, spec in grant.schema.items() if spec.primary_key)
    try:
        return found & parse({key: command.document}, grant.schema)
    except InvalidFilter:
        return Filter.nothing()  # no document has such an id: accepted, and silent


def _check_changes(command: Subscribe, grant: Grant) -> None:
    """Old values are known where they are asked for, and only readable fields are named."""
    if (command.transitions or command.changed is not None) and not grant.tracked:
        message = "This collection keeps no old values: neither transitions nor changed."
        raise Refusal(ErrorCode.BAD_REQUEST, message)
    readable = set(grant.filters if grant.fields is None else grant.fields)
    unknown = sorted(set(command.changed or ()) - readable)
    if unknown:
        message = f"Unknown fields {unknown} in changed; readable are {sorted(readable)}."
        raise Refusal(ErrorCode.BAD_REQUEST, message)


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
        raise Refusal(ErrorCode.BAD_REQUEST, message)
    return tuple(name for name in grant.fields if name in wanted)


def _wanted(session: Session, command: Subscribe, grant: Grant) -> Wanted | None:
    """The snapshot that was asked for."""
    asked, most = command.snapshot, session.limits.snapshot_documents
    if isinstance(asked, bool):
        return Wanted(most) if asked else None
    if asked.limit is not None and asked.limit > most:
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, f"A snapshot may have {most} documents at most.")
    if asked.order is not None:
        readable = set(grant.fields or ()) | grant.filters
        allowed = sorted(n for n, spec in grant.schema.items() if n in readable and spec.ordered)
        if asked.order.removeprefix("-") not in allowed:
            message = f"order {asked.order!r} is not possible; allowed are {allowed}."
            raise Refusal(ErrorCode.BAD_REQUEST, message)
    return Wanted(asked.limit or most, asked.order)


def _resume(
    session: Session, command: Subscribe, extent: Extent | None, scope: str
) -> tuple[Position | None, dict[str, Any]]:
    """Where to go on from, and what the reply says of it."""
    if command.since is None:
        return None, {}
    try:
        after = resume(
            command.collection, command.since, command.scope, extent, scope, session.limits
        )
    except Resync as resync:
        return None, {"resumed": False, "resync": {"reason": resync.reason}}
    return after, {"resumed": True}


def unsubscribe(session: Session, command: Unsubscribe) -> Steps:
    """Stop one subscription by name, or all those of a collection."""
    held = session.connection.subscriptions
    if (command.subscription is None) == (command.collection is None):
        yield session.error(
            ErrorCode.BAD_REQUEST, "Name either a subscription or a collection.", command.id
        )
        return
    if command.subscription is not None:
        found = [s for s in held.values() if s.name == command.subscription]
        named = {"subscription": command.subscription}
    else:
        found = [s for s in held.values() if s.collection == command.collection]
        named = {"collection": str(command.collection)}
    if not found:
        message = "There is no such subscription on this connection."
        yield session.error(ErrorCode.NOT_SUBSCRIBED, message, command.id)
        return
    for subscription in found:
        yield Detach(subscription)
    yield Send(native.reply("unsubscribed", command.id, **named))
