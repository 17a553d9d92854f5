"""Catch-up of a subscription, before it is live: sends a snapshot and the events that were missed.

If the collection has a log, nothing is buffered. The log is read until the subscription has
reached the position of the collection's tailer; in the same iteration of the event loop it becomes
live, so that no event can fall between the two. Without a log, events that happen during a
snapshot are buffered, and sent after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

from ..conf import conf
from ..declarations.collection import Collection
from ..declarations.soft_delete import apply_soft_delete
from ..events import Change
from ..log.cursor import Position
from ..log.cursor import encode as encode_cursor
from ..log.reader import read_events
from ..log.retention import rotate_epoch
from ..transport.connection import NATIVE
from ..utils.concurrency import run_in_threadpool, set_owner
from ..utils.project_code import DATABASE_UNAVAILABLE
from ..wire import frames
from ..wire.codes import CloseCode
from . import snapshot
from .checked_rows import select_shown_keys
from .event_frames import ChangeFrames
from .incomplete_images import find_undecidable, restore
from .row_permissions import evaluate
from .snapshot import Document
from .subscription import CatchUp, CatchUpPlan, Delivery, SnapshotQuery, Subscription
from .table import SubscriptionTable
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


def suspend(subscription: Subscription, topic: CollectionTopic) -> None:
    """Stop delivering immediately, and store where `resume` must continue."""
    stop(subscription)
    catchup = subscription.catchup
    if catchup is None:
        catchup = subscription.catchup = CatchUp()
    tailer = topic.tailer
    if tailer is None:
        # keep buffered events even if the snapshot is started again, since parts of it were sent
        catchup.buffered = catchup.buffered or []
        topic.table.add(subscription)
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
        position = plan.after or tailer.position
        if plan.snapshot is not None:
            # if the snapshot is started again, replay everything since its first page after it
            catchup.plan = CatchUpPlan(position, plan.snapshot)
            cursor = encode_cursor(subscription.stream, position.epoch, position.seq)
            await _send_snapshot(subscription, topic.collection, plan.snapshot, cursor)
            catchup.plan = CatchUpPlan(position)
        if await _replay(subscription, catchup, topic, tailer, position):
            go_live(subscription, topic)
        else:
            connection.close(CloseCode.POSITION_LOST)
    except DATABASE_UNAVAILABLE as error:
        logger.warning("A subscription could not be started: %r", error)
        connection.close(CloseCode.UNAVAILABLE)
    except Exception:
        logger.exception(
            "Subscription %r to collection %r could not be started for %s.",
            subscription.name,
            topic.collection.name,
            None if connection.identity is None else connection.identity.credential,
        )
        topic.end_with_error(subscription)


# replay


async def _replay(
    subscription: Subscription,
    catchup: CatchUp,
    topic: CollectionTopic,
    tailer: LogTailer,
    position: Position,
) -> bool:
    """Send the events after ``position``, up to that of the tailer.

    Returns False if the log does not contain all of them. When it returns True, the subscription
    is at the position of the tailer, which does not change before the caller's next ``await``.
    """
    writer = subscription.connection.writer
    limits = conf.limits
    # ``seq`` is the last event that was read; ``sent`` the last one up to which the client was
    # sent all events that it must get, or a cursor
    seq = sent = position.seq
    while (position.epoch, seq) != (tailer.epoch, tailer.seq):
        if position.epoch != tailer.epoch or seq > tailer.seq:
            return False
        changes = await run_in_threadpool(
            read_events,
            tailer.using,
            subscription.stream,
            position.epoch,
            seq,
            limits.replay_events,
            until=tailer.seq,
        )
        if not changes or changes[0].seq != seq + 1:
            return False
        missed = await run_in_threadpool(
            _find_missed, topic.collection, topic.table, subscription, changes
        )
        if missed is None:
            # otherwise the client would come back with the same cursor
            name = topic.collection.stream
            await run_in_threadpool(rotate_epoch, tailer.using, [name], epoch=position.epoch)
            return False
        for change, delivery in missed:
            await writer.wait_drained()
            for text in ChangeFrames(change, limits.event_bytes, replayed=True).texts([delivery]):
                writer.push(text)
            sent = change.seq or sent
            catchup.plan = CatchUpPlan(Position(position.epoch, sent))
        seq = changes[-1].seq or seq
        if seq > sent:
            await writer.wait_drained()
            sent = seq
            if subscription.connection.dialect != NATIVE:
                continue
            cursor = encode_cursor(subscription.stream, position.epoch, seq)
            writer.push(frames.encode(frames.cursor(subscription.name, cursor)))
    return True


def _find_missed(
    collection: Collection,
    table: SubscriptionTable,
    subscription: Subscription,
    changes: list[Change],
) -> list[tuple[Change, Delivery]] | None:
    """Return the changes that the subscription must get; None if that cannot be decided.

    May use the ORM: not for event loops.
    """
    missed: list[tuple[Change, Delivery]] = []
    for change in restore(collection, changes):
        if find_undecidable(collection, change, [subscription.query]):
            return None
        visible = apply_soft_delete(collection.decode(change), collection)
        if visible is None:
            continue
        if subscription.query.check is not None:
            deliveries = evaluate(collection, visible, [subscription])
            missed += [(visible, delivery) for delivery in deliveries]
        elif event := table.event_for(subscription, visible):
            missed.append((visible, (subscription, event)))
    return missed


# snapshot


async def _send_snapshot(
    subscription: Subscription, collection: Collection, query: SnapshotQuery, cursor: str | None
) -> None:
    """Send the documents that match now, in pages. ``cursor`` is the position before them."""
    writer = subscription.connection.writer
    if subscription.query.check is None:
        keys = await run_in_threadpool(
            snapshot.select_keys, collection, subscription, query.order, query.limit
        )
        is_cut = len(keys) > query.limit
    else:
        keys, is_cut = await select_shown_keys(collection, subscription, query)
    remaining, unread = query.limit, keys[: query.limit]
    ready: list[Document] = []
    more = True
    while more:
        # a page is sent when it is full and a further document is known, so that neither the
        # number of pages nor `more` reveals rows that a permission has hidden in the meantime
        size = min(snapshot.PAGE_SIZE, remaining)
        while unread and len(ready) <= size:
            part, unread = unread[: snapshot.PAGE_SIZE], unread[snapshot.PAGE_SIZE :]
            ready += await run_in_threadpool(
                snapshot.load_documents, collection, subscription, part
            )
        documents, ready = ready[:size], ready[size:]
        remaining -= len(documents)
        more = bool(ready) and remaining > 0
        truncated = bool(ready) or is_cut
        for page, has_next in _split(documents, conf.limits.event_bytes):
            frame = frames.snapshot(subscription.name, page, cursor, more=more or has_next)
            if truncated and not frame["more"]:
                frame["truncated"] = True
            await writer.wait_drained()
            writer.push(frames.encode(frame))


def _split(documents: list[Document], max_bytes: int) -> Iterator[tuple[list[Any], bool]]:
    """Yield pages of up to about ``max_bytes``, each with whether another one follows.

    A document that is larger than a page is reduced to its id and ``"truncated": true``.
    """
    page: list[Any] = []
    size = 0
    for document in documents:
        length = len(frames.encode(document).encode())
        if length > max_bytes:
            document, length = {"id": document["id"], "truncated": True}, 0
        if page and size + length > max_bytes:
            yield page, True
            page, size = [], 0
        page.append(document)
        size += length
    yield page, False


# without a log


async def _without_log(
    subscription: Subscription,
    catchup: CatchUp,
    topic: CollectionTopic,
    query: SnapshotQuery | None,
) -> None:
    """Send a snapshot, buffer the events that happen during it, and send them after it."""
    catchup.buffered = catchup.buffered or []
    topic.table.add(subscription)
    if query is not None:
        await _send_snapshot(subscription, topic.collection, query, None)
    _flush_buffer(subscription, topic)


def _flush_buffer(subscription: Subscription, topic: CollectionTopic) -> None:
    """Send the buffered events, and make the subscription live."""
    buffer = subscription.buffer
    subscription.catchup = None
    topic.table.add(subscription)
    for text in buffer or ():
        subscription.connection.writer.push(text)
