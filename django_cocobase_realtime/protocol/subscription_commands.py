"""``subscribe`` and ``unsubscribe``."""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, Any

from ..declarations.authorization import Grant
from ..delivery.query import SubscriptionRefused, authorize_query, serialize_request
from ..delivery.table import EVENTS, CatchUpPlan, SnapshotQuery, Subscription
from ..log.cursor import Position, encode
from ..log.reader import StreamRange
from ..log.recovery import Resync, resume
from ..wire import frames
from ..wire.codes import ErrorCode
from ..wire.commands import Subscribe, Unsubscribe
from .effects import (
    AttachSubscription,
    AuthorizeCollection,
    DetachSubscription,
    OpenTopic,
    Send,
    Steps,
)

if TYPE_CHECKING:
    from .session import Session

MAX_REQUEST_BYTES = 1024 * 1024  # of a connection's subscribe requests, which are kept


def subscribe(session: Session, command: Subscribe) -> Steps:
    """Watch a collection. One of the same name is replaced; a refused one leaves it alone."""
    connection = session.connection
    rights, asked = connection.permissions_version, serialize_request(command)
    try:
        _check_names(session, command)
        _check_size(session, command, asked)
        grant: Grant | None = yield AuthorizeCollection(command.collection, command.filters or {})
        if grant is None:
            message = f"There is no collection {command.collection!r} that you may watch."
            raise SubscriptionRefused(ErrorCode.UNKNOWN_COLLECTION, message)
        view = authorize_query(session.limits, command, grant, session.identity)
        wanted = _snapshot_query(session, command, grant)
    except SubscriptionRefused as refusal:
        yield session.error(refusal.code, str(refusal), command.id)
        return
    subscription = Subscription(
        connection=connection,
        # most clients use the same names
        name=intern(command.subscription or command.collection),
        collection=intern(command.collection),
        query=view,
        events=EVENTS if command.events is None else frozenset(command.events),
        transitions=command.transitions,
        changed=None if command.changed is None else frozenset(command.changed),
        request=asked,
        permissions_version=rights,
    )
    extent: StreamRange | None = yield OpenTopic(command.collection)
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
        yield AttachSubscription(subscription, CatchUpPlan(after))
    else:
        yield AttachSubscription(
            subscription, None if wanted is None else CatchUpPlan(snapshot=wanted)
        )


def _check_names(session: Session, command: Subscribe) -> None:
    limits, held = session.limits, session.connection.subscriptions
    if session.is_name_too_long(command.collection) or session.is_name_too_long(
        command.subscription
    ):
        message = f"Names may have {limits.name_bytes} bytes at most."
        raise SubscriptionRefused(ErrorCode.LIMIT_EXCEEDED, message)
    name = command.subscription or command.collection
    if name not in held and len(held) >= limits.subscriptions:
        message = f"A connection may have {limits.subscriptions} subscriptions at most."
        raise SubscriptionRefused(ErrorCode.LIMIT_EXCEEDED, message)


def _check_size(session: Session, command: Subscribe, asked: bytes) -> None:
    name = command.subscription or command.collection
    others = (each for each in session.connection.subscriptions.values() if each.name != name)
    if len(asked) + sum(len(each.request) for each in others) > MAX_REQUEST_BYTES:
        message = f"What a connection subscribes to may have {MAX_REQUEST_BYTES} bytes in all."
        raise SubscriptionRefused(ErrorCode.LIMIT_EXCEEDED, message)


def _snapshot_query(session: Session, command: Subscribe, grant: Grant) -> SnapshotQuery | None:
    """The snapshot that was asked for."""
    asked, most = command.snapshot, session.limits.snapshot_documents
    if isinstance(asked, bool):
        return SnapshotQuery(most) if asked else None
    if asked.limit is not None and asked.limit > most:
        raise SubscriptionRefused(
            ErrorCode.LIMIT_EXCEEDED, f"A snapshot may have {most} documents at most."
        )
    if asked.order is not None:
        readable = set(grant.fields or ()) | grant.filters
        allowed = sorted(n for n, spec in grant.schema.items() if n in readable and spec.ordered)
        if asked.order.removeprefix("-") not in allowed:
            message = f"order {asked.order!r} is not possible; allowed are {allowed}."
            raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)
    return SnapshotQuery(asked.limit or most, asked.order)


def _resume(
    session: Session, command: Subscribe, extent: StreamRange | None, scope: str
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
        yield DetachSubscription(subscription)
    yield Send(frames.reply("unsubscribed", command.id, **named))
