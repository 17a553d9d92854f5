"""The commands for collections: ``subscribe`` and ``unsubscribe``."""

from __future__ import annotations

from sys import intern
from typing import Any

from ..declarations.authorization import Grant
from ..delivery.filter_costs import NewFilter
from ..delivery.query import ALL_EVENTS, SubscriptionRefused, authorize_query, serialize_request
from ..delivery.subscription import CatchUpPlan, SnapshotQuery, Subscription, SubscriptionRequest
from ..log.cursor import Position, encode
from ..log.reader import StreamRange
from ..log.resume import Resync, resume_subscription
from ..metrics import metrics
from ..wire import frames
from ..wire.codes import ErrorCode
from ..wire.commands import Subscribe, Unsubscribe
from .effects import (
    AttachSubscription,
    AuthorizeCollection,
    DetachSubscription,
    OpenTopic,
    ReserveFilterCost,
    Send,
    Steps,
)
from .live_commands import live_query, read_order
from .state import SessionState

# limit for all `subscribe` requests of a connection, which are kept in memory
MAX_REQUEST_BYTES = 1024 * 1024


def subscribe(session: SessionState, command: Subscribe) -> Steps:
    """Subscribe to a collection, and replace a subscription with the same name.

    If the request is refused, the old subscription continues.
    """
    connection = session.connection
    permissions_version, serialized = connection.permissions_version, serialize_request(command)
    try:
        _check_names(session, command)
        _check_size(session, command, serialized)
        grant: Grant | None = yield AuthorizeCollection(command.collection, command.filters or {})
        if grant is None:
            message = f"There is no collection {command.collection!r} that you may watch."
            raise SubscriptionRefused(ErrorCode.UNKNOWN_COLLECTION, message)
        query = authorize_query(session.limits, command, grant, session.identity)
        live = live_query(session, command, grant)
        snapshot = _snapshot_query(session, command, grant)
        name = command.subscription or command.collection
        filter = NewFilter(name, grant.stream, command.transitions, query)
        is_affordable: bool = yield ReserveFilterCost(filter)
        if not is_affordable:
            raise SubscriptionRefused(ErrorCode.LIMIT_EXCEEDED, _cost_message(session, query.cost))
    except SubscriptionRefused as refusal:
        yield session.error(refusal.code, str(refusal), command.id)
        return
    request = SubscriptionRequest(
        # interned to save memory, since most clients use the same names
        name=intern(name),
        collection=intern(command.collection),
        events=ALL_EVENTS if command.events is None else frozenset(command.events),
        transitions=command.transitions,
        changed=None if command.changed is None else frozenset(command.changed),
        serialized=serialized,
        stream=intern(grant.stream),
        snapshot=snapshot,
        live=live,
    )
    stream: StreamRange | None = yield OpenTopic(grant.stream)
    after, outcome = _resume(session, command, grant, stream, query.scope)
    reply = frames.reply(
        "subscribed",
        command.id,
        collection=command.collection,
        subscription=request.name,
        filters=command.filters or {},
        scope=query.scope,
        durable=stream is not None,
        **outcome,
    )
    if stream is not None and live is None:  # the frame with the result has its own
        seq = stream.head if after is None else after.seq
        reply["cursor"] = encode(grant.stream, stream.epoch, seq)
    plan = None
    if after is not None:
        plan = CatchUpPlan(after)
    elif snapshot is not None or live is not None:
        plan = CatchUpPlan(snapshot=snapshot)
    # the reply comes before all frames of the subscription
    yield Send(reply)
    yield AttachSubscription(Subscription(connection, request, query, permissions_version), plan)


def _cost_message(session: SessionState, cost: float) -> str:
    return (
        f"This filter costs about {cost:.0f} µs per event; all filters of a user may cost "
        f"{session.limits.filter_cost:g} µs together. Above all, contains on long texts costs."
    )


def _check_names(session: SessionState, command: Subscribe) -> None:
    limits, subscriptions = session.limits, session.subscriptions
    if session.is_name_too_long(command.collection) or session.is_name_too_long(
        command.subscription
    ):
        message = f"Names may have {limits.name_bytes} bytes at most."
        raise SubscriptionRefused(ErrorCode.LIMIT_EXCEEDED, message)
    name = command.subscription or command.collection
    if name not in subscriptions and len(subscriptions) >= limits.subscriptions:
        message = f"A connection may have {limits.subscriptions} subscriptions at most."
        raise SubscriptionRefused(ErrorCode.LIMIT_EXCEEDED, message)


def _check_size(session: SessionState, command: Subscribe, serialized: bytes) -> None:
    name = command.subscription or command.collection
    others = [sub for sub in session.subscriptions.values() if sub.name != name]
    total = len(serialized) + sum(len(sub.request.serialized) for sub in others)
    if total > MAX_REQUEST_BYTES:
        message = f"All subscriptions together may have {MAX_REQUEST_BYTES} bytes at most."
        raise SubscriptionRefused(ErrorCode.LIMIT_EXCEEDED, message)


def _snapshot_query(
    session: SessionState, command: Subscribe, grant: Grant
) -> SnapshotQuery | None:
    """Return the requested snapshot, or None. Raises `SubscriptionRefused` if not allowed."""
    requested, max_documents = command.snapshot, session.limits.snapshot_documents
    if isinstance(requested, bool):
        return SnapshotQuery(max_documents) if requested else None
    if requested.limit is not None and requested.limit > max_documents:
        message = f"A snapshot may have {max_documents} documents at most."
        raise SubscriptionRefused(ErrorCode.LIMIT_EXCEEDED, message)
    order = read_order(requested.order, grant)
    return SnapshotQuery(requested.limit or max_documents, order)


def _resume(
    session: SessionState,
    command: Subscribe,
    grant: Grant,
    stream: StreamRange | None,
    scope: str,
) -> tuple[Position | None, dict[str, Any]]:
    """Return the position to resume from, or None, and the keys of the reply about it."""
    if command.since is None:
        return None, {}
    try:
        after = resume_subscription(
            grant.stream, command.since, command.scope, stream, scope, session.limits
        )
    except Resync as resync:
        metrics.resumes["subscription", resync.reason] += 1
        return None, {"resumed": False, "resync": {"reason": resync.reason}}
    metrics.resumes["subscription", "resumed"] += 1
    return after, {"resumed": True}


def unsubscribe(session: SessionState, command: Unsubscribe) -> Steps:
    """End one subscription by its name, or all subscriptions to a collection."""
    if (command.subscription is None) == (command.collection is None):
        yield session.error(
            ErrorCode.BAD_REQUEST, "Name either a subscription or a collection.", command.id
        )
        return
    subscriptions = session.subscriptions.values()
    if command.subscription is not None:
        selected = [sub for sub in subscriptions if sub.name == command.subscription]
        names = {"subscription": command.subscription}
    else:
        selected = [sub for sub in subscriptions if sub.collection == command.collection]
        names = {"collection": str(command.collection)}
    if not selected:
        message = "There is no such subscription on this connection."
        yield session.error(ErrorCode.NOT_SUBSCRIBED, message, command.id)
        return
    for subscription in selected:
        yield DetachSubscription(subscription)
    yield Send(frames.reply("unsubscribed", command.id, **names))
