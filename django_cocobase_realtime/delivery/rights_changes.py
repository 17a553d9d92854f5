"""A change of what a subscription may see, as its client is sent it.

A client that asked for transitions is sent the documents that became visible and the ids of those
that are hidden now, all as of one position of the log. Any other client is asked to load its data
again; if it had asked for a snapshot, a new one follows. Nothing closes the connection.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..conf import conf
from ..filters import Filter
from ..log.as_of import Differences, differences_as_of
from ..log.cursor import Position
from ..log.cursor import encode as encode_cursor
from ..log.touched import CannotUndo, TooManyTouched
from ..utils.concurrency import run_in_threadpool
from ..wire import frames
from ..wire.codes import ResyncReason
from .event_frames import document_of
from .query import current_scope
from .snapshot import cursor_at, encode_document
from .subscription import CatchUp, CatchUpPlan, RightsChange, Subscription
from .tailer import LogTailer
from .topic import CollectionTopic


def plan_rights_change(subscription: Subscription, shown: Filter | None) -> bool:
    """Plan what to send to a suspended subscription whose rights may have changed.

    ``shown`` is what its client was sent documents by, None if that is not known. Returns whether
    the client must be sent anything about its rights.
    """
    catchup = subscription.catchup
    assert catchup is not None
    plan = catchup.plan
    assert plan is not None
    change = plan.rights_change
    if change is None or not change.is_started:
        if current_scope(subscription.query) == subscription.scope:
            change = None
        elif change is None:
            change = RightsChange(shown)
    catchup.plan = replace(plan, rights_change=change)
    return change is not None


async def send_rights_change(
    subscription: Subscription,
    catchup: CatchUp,
    topic: CollectionTopic,
    tailer: LogTailer,
    plan: CatchUpPlan,
) -> CatchUpPlan:
    """Send what changed, and return what must be sent after it.

    The plan of ``catchup`` is kept up to date, so that the change can be interrupted.
    """
    change = plan.rights_change
    assert change is not None
    # otherwise documents could be sent in a state that they had before the client got the right
    await tailer.wait_caught_up()
    position = tailer.position
    if plan.after is not None and _can_move(subscription, topic, plan, change):
        differences = await _read_differences(subscription, topic, plan.after, position, change)
        if differences is not None:
            await _send_moved(subscription, catchup, position, change, differences)
            return CatchUpPlan(position)
    return await _send_resync(subscription, catchup, position)


def _can_move(
    subscription: Subscription, topic: CollectionTopic, plan: CatchUpPlan, change: RightsChange
) -> bool:
    """Return whether a client can be sent the difference."""
    return (
        subscription.request.transitions
        and change.old is not None
        and not change.is_started  # a part was sent, and the rest may be another one now
        and plan.snapshot is None
        and subscription.query.check is None
        and topic.collection.track
    )


async def _read_differences(
    subscription: Subscription,
    topic: CollectionTopic,
    since: Position,
    position: Position,
    change: RightsChange,
) -> Differences | None:
    """Return the documents that are shown or hidden now; None if they are too many to be sent."""
    old, new = change.old, subscription.query.filter.with_held_keys()
    assert old is not None
    read = partial(
        differences_as_of,
        topic.collection,
        old,
        new,
        position,
        since=since,
        limit=conf.limits.snapshot_documents,
    )
    try:
        differences = await run_in_threadpool(read)
    except (CannotUndo, TooManyTouched):
        return None
    return None if differences.is_cut else differences


async def _send_moved(
    subscription: Subscription,
    catchup: CatchUp,
    position: Position,
    change: RightsChange,
    differences: Differences,
) -> None:
    """Send documents as of a position, in parts."""
    writer, fields = subscription.connection.writer, subscription.query.fields
    scope = current_scope(subscription.query)
    documents = (document_of(document, fields) for document in differences.entered)
    parts = frames.moved(
        subscription.name,
        entered=map(encode_document, documents),
        left=differences.left,
        cursor=encode_cursor(subscription.stream, position.epoch, position.seq),
        scope=scope,
        max_bytes=conf.limits.event_bytes,
    )
    for part in parts:
        async with writer.page_turn:
            await writer.wait_drained()
            change.is_started = True
            writer.push(part)
    subscription.scope = scope
    catchup.plan = CatchUpPlan(position)


async def _send_resync(
    subscription: Subscription, catchup: CatchUp, position: Position
) -> CatchUpPlan:
    """Ask the client to load its data again; return the plan for what follows."""
    writer, snapshot = subscription.connection.writer, subscription.request.snapshot
    plan = CatchUpPlan(position) if snapshot is None else CatchUpPlan(snapshot=snapshot)
    async with writer.page_turn:
        await writer.wait_drained()
        scope = current_scope(subscription.query)
        frame = frames.resync(
            subscription.name,
            ResyncReason.SCOPE_CHANGED,
            scope=scope,
            cursor=cursor_at(subscription.stream, plan.after),
        )
        writer.push(frames.encode(frame))
        subscription.scope, catchup.plan = scope, plan
    return plan
