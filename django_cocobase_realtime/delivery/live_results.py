"""Sends a subscription to a live query its result, after which the query keeps it up to date.

A client that has a result already is sent the difference: after its rights were evaluated again, or
after it asked for a larger window. A client that resumes is sent nothing if no matching row has
changed since its cursor, and the whole result otherwise.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import chain
from typing import Any

from ..conf import conf
from ..declarations.collection import Collection
from ..declarations.soft_delete import apply_soft_delete
from ..filters import Filter
from ..log.cursor import Position
from ..log.reader import read_events
from ..utils.concurrency import run_in_threadpool
from ..wire import frames
from ..wire.codes import ErrorCode
from ..wire.result_frames import ResultEnd
from .endings import TOO_MANY_BYTES
from .incomplete_images import is_complete
from .live_queries import form_of
from .live_query import LiveQuery
from .query import current_scope
from .snapshot import cursor_at
from .subscription import CatchUp, CatchUpPlan, Subscription
from .tailer import LogTailer
from .topic import CollectionTopic


async def send_live_result(
    subscription: Subscription,
    catchup: CatchUp,
    topic: CollectionTopic,
    tailer: LogTailer,
    plan: CatchUpPlan,
) -> None:
    """Send a subscription what it lacks of its result, and make it live."""
    writer = subscription.connection.writer
    if current_scope(subscription.query) != subscription.scope:
        # otherwise it could be sent rows in a state that they had before it got the right
        await tailer.wait_caught_up()
        plan = CatchUpPlan()
    catchup.plan = CatchUpPlan(plan.after)
    async with writer.snapshot_turn:
        live = topic.live_queries.join(subscription)
        await live.wait_complete()
        if not topic.may_hold(subscription):
            message = TOO_MANY_BYTES.format(conf.limits.window_bytes)
            topic.end_with_error(subscription, ErrorCode.LIMIT_EXCEEDED, message)
            return
        if plan.after is not None and await _resume(subscription, topic, live, plan.after):
            return
        catchup.plan = CatchUpPlan()
        while True:
            await writer.wait_drained()
            await live.wait_complete()
            if await _send(subscription, topic, live):
                return


async def _send(subscription: Subscription, topic: CollectionTopic, live: LiveQuery[Any]) -> bool:
    """Send what a subscription lacks; return whether it is live then.

    If that takes several frames, the result may be another one afterwards.
    """
    writer, form = subscription.connection.writer, form_of(subscription)
    result, scope = live.state.result(form), current_scope(subscription.query)
    sent = subscription.sent
    end = ResultEnd(
        cursor_at(subscription.stream, topic.position) or "",
        None if scope == subscription.scope else scope,
        is_required=subscription.awaits_result or scope != subscription.scope,
    )
    if sent is None:
        parts = live.whole_frames(form, result, end)
    else:
        parts = live.state.frames(form, sent, result, end)
    first, second = next(parts, None), next(parts, None)
    if second is not None:
        subscription.sent = None  # if this is interrupted, the client has parts only
        for text in chain((first, second), parts):
            await writer.wait_drained()
            writer.push(text or "")
            await asyncio.sleep(0)  # a frame of documents takes a millisecond to encode
    elif first is not None:
        writer.push(first)
    subscription.sent, subscription.scope = result, scope
    subscription.awaits_result = False
    if second is not None:
        return False
    _go_live(subscription, live)
    return True


def _go_live(subscription: Subscription, live: LiveQuery[Any]) -> None:
    """Have the query keep a subscription up to date, which was sent the present result."""
    live.attach(subscription)
    subscription.sent = None
    subscription.awaits_result = False
    subscription.catchup = None


async def _resume(
    subscription: Subscription, topic: CollectionTopic, live: LiveQuery[Any], after: Position
) -> bool:
    """Make a subscription live without its result if no matching row has changed since ``after``.

    Returns False if it must be sent the result.
    """
    position = topic.position
    assert position is not None
    filter = live.filter.with_held_keys()
    check = partial(_is_unchanged, topic.collection, filter, after, position)
    if not await run_in_threadpool(check):
        return False
    await live.wait_complete()
    if live.last_seq > position.seq:
        return False
    cursor = cursor_at(subscription.stream, topic.position) or ""
    frame = frames.cursor(subscription.name, cursor)
    subscription.connection.writer.push(frames.encode(frame))
    _go_live(subscription, live)
    return True


def _is_unchanged(
    collection: Collection, filter: Filter, after: Position, position: Position
) -> bool:
    """Return whether no row that matches has changed between two positions.

    Uses the ORM: not for event loops. Further events than a page of a replay are not examined.
    """
    if after.epoch != position.epoch:
        return False
    count = position.seq - after.seq
    limit = conf.limits.replay_events
    if count > limit:
        return False
    changes = read_events(
        collection.database, collection.stream, after.epoch, after.seq, limit, until=position.seq
    )
    if len(changes) < count:
        return False
    for change in changes:
        if not is_complete(collection, change):
            return False
        if change.op != "created" and change.before is None:
            return False
        visible = apply_soft_delete(collection.decode(change), collection)
        if visible is None:
            continue
        images = (visible.before, visible.after)
        if any(image is not None and filter.matches(collection.row(image)) for image in images):
            return False
    return True
