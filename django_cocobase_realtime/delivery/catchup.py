"""Catch-up of a subscription, before it is live: sends a snapshot and the events that were missed.

Only one catch-up of a connection at a time reads a page and sends it, and so does only one
snapshot, so that a client that requests many and reads slowly does not fill the memory.

If the collection has a log, nothing is buffered. The log is read until the subscription has
reached the position of the collection's tailer; in the same iteration of the event loop it becomes
live, so that no event can fall between the two. Without a log, events that happen during a
snapshot are buffered, and sent after it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from ..live_queries.fold import TooManyGroups
from ..log.cursor import Position
from ..transport.waiting_frames import FrameBuffer
from ..utils.concurrency import set_owner
from ..utils.project_code import DATABASE_UNAVAILABLE
from ..utils.repeated_log import log_repeated
from ..wire.codes import CloseCode
from .live_results import send_live_result
from .replay import replay
from .rights_changes import send_rights_change
from .shared_snapshots import SharedFrames
from .snapshot import cursor_at, read_as_of, select_documents, send_frames, send_snapshot
from .subscription import CatchUp, CatchUpPlan, SnapshotQuery, Subscription
from .tailer import LogTailer
from .topic import CollectionTopic

logger = logging.getLogger(__name__)


def go_live(subscription: Subscription, topic: CollectionTopic) -> None:
    """Make a subscription live: from now on, events are delivered as they happen."""
    subscription.catchup = None
    topic.table.add(subscription)
    subscription.last_seq = 0 if topic.tailer is None else topic.tailer.seq


def start(subscription: Subscription, topic: CollectionTopic, plan: CatchUpPlan) -> None:
    """Start a task that sends what the plan requires, after which the subscription is live."""
    catchup = subscription.catchup
    if catchup is None:
        catchup = subscription.catchup = CatchUp()
    catchup.plan = plan
    catchup.task = asyncio.get_running_loop().create_task(_run(subscription, catchup, topic, plan))


def stop(subscription: Subscription) -> None:
    """Cancel the task of `start`, if it runs."""
    catchup = subscription.catchup
    if catchup is not None and catchup.task is not None:
        catchup.task.cancel()
        catchup.task = None


def discard(subscription: Subscription) -> None:
    """Stop the catch-up of a subscription that has ended, and drop what waits for it."""
    stop(subscription)
    if subscription.buffer is not None:
        subscription.buffer.clear()


def suspend(subscription: Subscription, topic: CollectionTopic) -> None:
    """Stop delivering immediately, and store where `resume` must continue."""
    stop(subscription)
    catchup = subscription.catchup
    if catchup is None:
        catchup = subscription.catchup = CatchUp()
    tailer = topic.tailer
    if tailer is None:
        # keep buffered events even if the snapshot is started again, since parts of it were sent
        _start_buffering(subscription, catchup, topic)
    elif subscription.request.live is not None:
        sent = topic.live_queries.discard(subscription)
        if sent is not None:
            subscription.sent = sent
        catchup.plan = catchup.plan or CatchUpPlan()
    else:
        topic.table.discard(subscription)
        pending = subscription.pending_row_checks
        seq = pending[0] - 1 if pending else tailer.seq
        catchup.plan = catchup.plan or CatchUpPlan(Position(tailer.epoch, seq))
        subscription.pending_row_checks = None


def resume(subscription: Subscription, topic: CollectionTopic) -> None:
    """Continue a suspended subscription where it was stopped."""
    plan = None if subscription.catchup is None else subscription.catchup.plan
    if plan is not None:
        start(subscription, topic, plan)
    else:
        _flush_buffer(subscription, topic)


async def _run(
    subscription: Subscription, catchup: CatchUp, topic: CollectionTopic, plan: CatchUpPlan
) -> None:
    """Carry out a plan.

    If the database does not answer, close the connection, so that its client reconnects. After
    another failure, which might happen each time, end only this subscription.
    """
    connection = subscription.connection
    set_owner(connection.owner.background(), subscription.stream)
    try:
        tailer = topic.tailer
        if tailer is None:
            await _without_log(subscription, catchup, topic, plan.snapshot)
            return
        if subscription.request.live is not None:
            await send_live_result(subscription, catchup, topic, tailer, plan)
            return
        if plan.rights_change is not None:
            async with connection.writer.snapshot_turn:
                plan = await send_rights_change(subscription, catchup, topic, tailer, plan)
        position = plan.after or tailer.position
        if plan.snapshot is not None:
            async with connection.writer.snapshot_turn:
                position = await _send_snapshot(subscription, catchup, topic, tailer, plan)
        if await replay(subscription, catchup, topic, tailer, position):
            go_live(subscription, topic)
        else:
            connection.close(CloseCode.POSITION_LOST)
    except DATABASE_UNAVAILABLE as error:
        log_repeated(
            logger,
            logging.WARNING,
            "Connection %s: a subscription could not be started: %r",
            connection.id,
            error,
            client=connection.id,
        )
        connection.close(CloseCode.UNAVAILABLE)
    except TooManyGroups as error:
        topic.end_live_query(subscription, error)
    except Exception:
        log_repeated(
            logger,
            logging.ERROR,
            "Connection %s: subscription %r to collection %r could not be started for %s.",
            connection.id,
            subscription.name,
            topic.collection.name,
            None if connection.identity is None else connection.identity.credential,
            kind=topic.collection.name,
            client=connection.id,
            exc_info=True,
        )
        topic.end_with_error(subscription)


async def _send_snapshot(
    subscription: Subscription,
    catchup: CatchUp,
    topic: CollectionTopic,
    tailer: LogTailer,
    plan: CatchUpPlan,
) -> Position:
    """Send the snapshot of a plan; return the position from which the events must follow it."""
    assert plan.snapshot is not None
    # a snapshot that was interrupted is read alone, since it keeps its first position
    shared = None if plan.after else await _read_shared(subscription, topic, plan.snapshot)
    position = plan.after or (shared and shared.position) or tailer.position
    if shared is not None:
        # if the snapshot is started again, replay everything since its first page after it
        catchup.plan = CatchUpPlan(position, plan.snapshot)
        await send_frames(subscription, shared.frames)
    else:
        position = await _send_alone(subscription, catchup, topic, tailer, plan, position)
    catchup.plan = CatchUpPlan(position)
    return position


async def _send_alone(
    subscription: Subscription,
    catchup: CatchUp,
    topic: CollectionTopic,
    tailer: LogTailer,
    plan: CatchUpPlan,
    position: Position,
) -> Position:
    """Send a snapshot that is not shared; return the position from which events must follow."""

    async def advance() -> Position:
        await tailer.wait_caught_up()
        return tailer.position

    query = plan.snapshot
    assert query is not None
    (reader, is_cut), position = await read_as_of(
        partial(select_documents, subscription, topic.collection, query),
        position,
        None if plan.after else advance,
    )
    # if the snapshot is started again, replay everything since its first page after it
    catchup.plan = CatchUpPlan(position, query)
    cursor = cursor_at(subscription.stream, position)
    await send_snapshot(subscription, reader, query, cursor, is_cut=is_cut)
    return position


async def _read_shared(
    subscription: Subscription, topic: CollectionTopic, query: SnapshotQuery
) -> SharedFrames | None:
    """Return the frames of a shared snapshot; None if the client must read alone."""
    # a client that does not read must not make the server read more
    await subscription.connection.writer.wait_drained()
    return await topic.shared_snapshots.read(subscription, query)


# without a log


async def _without_log(
    subscription: Subscription,
    catchup: CatchUp,
    topic: CollectionTopic,
    query: SnapshotQuery | None,
) -> None:
    """Send a snapshot, buffer the events that happen during it, and send them after it."""
    if query is not None:
        async with subscription.connection.writer.snapshot_turn:
            # not earlier, since the snapshot contains what happens while it waits for its turn
            _start_buffering(subscription, catchup, topic)
            shared = await _read_shared(subscription, topic, query)
            if shared is None:
                reader, is_cut = await select_documents(subscription, topic.collection, query, None)
                await send_snapshot(subscription, reader, query, None, is_cut=is_cut)
            else:
                await send_frames(subscription, shared.frames)
    _flush_buffer(subscription, topic)


def _start_buffering(subscription: Subscription, catchup: CatchUp, topic: CollectionTopic) -> None:
    """Buffer events from now on. Those that are buffered already are kept."""
    if catchup.buffered is None:
        catchup.buffered = FrameBuffer(subscription.connection.writer)
    topic.table.add(subscription)


def _flush_buffer(subscription: Subscription, topic: CollectionTopic) -> None:
    """Send the buffered events, and make the subscription live."""
    buffer = subscription.buffer
    subscription.catchup = None
    topic.table.add(subscription)
    if buffer is not None:
        buffer.flush()
