"""``subscribe`` and ``unsubscribe``."""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, Any

from ..declarations.authorization import Grant
from ..delivery.query import Refusal, packed, view_of
from ..delivery.table import EVENTS, Begin, Subscription, Wanted
from ..log.cursor import Position, encode
from ..log.reader import Extent
from ..log.recovery import Resync, resume
from ..wire import frames
from ..wire.codes import ErrorCode
from ..wire.commands import Subscribe, Unsubscribe
from .effects import Attach, Authorize, Detach, Prepare, Send, Steps

if TYPE_CHECKING:
    from .session import Session

ASKED_BYTES = 1024 * 1024  # of a connection's subscribe requests, which are kept


def subscribe(session: Session, command: Subscribe) -> Steps:
    """Watch a collection. One of the same name is replaced; a refused one leaves it alone."""
    connection = session.connection
    rights, asked = connection.rights, packed(command)
    try:
        _check_names(session, command)
        _check_size(session, command, asked)
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
        # most clients use the same names
        name=intern(command.subscription or command.collection),
        collection=intern(command.collection),
        view=view,
        events=EVENTS if command.events is None else frozenset(command.events),
        transitions=command.transitions,
        changed=None if command.changed is None else frozenset(command.changed),
        asked=asked,
        rights=rights,
    )
    extent: Extent | None = yield Prepare(command.collection)
    scope = view.scope
    after, answer = _resume(session, command, extent, scope)
    reply = frames.reply(
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


def _check_names(session: Session, command: Subscribe) -> None:
    limits, held = session.limits, session.connection.subscriptions
    if session.too_long(command.collection) or session.too_long(command.subscription):
        message = f"Names may have {limits.name_bytes} bytes at most."
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message)
    name = command.subscription or command.collection
    if name not in held and len(held) >= limits.subscriptions:
        message = f"A connection may have {limits.subscriptions} subscriptions at most."
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message)


def _check_size(session: Session, command: Subscribe, asked: bytes) -> None:
    name = command.subscription or command.collection
    others = (each for each in session.connection.subscriptions.values() if each.name != name)
    if len(asked) + sum(len(each.asked) for each in others) > ASKED_BYTES:
        message = f"What a connection subscribes to may have {ASKED_BYTES} bytes in all."
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message)


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
    yield Send(frames.reply("unsubscribed", command.id, **named))
