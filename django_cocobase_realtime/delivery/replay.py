"""Replay: sends a subscription the events that it has missed, page by page, from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from ..conf import conf
from ..declarations.collection import Collection
from ..declarations.soft_delete import apply_soft_delete
from ..events import Change
from ..log.cursor import Position
from ..log.cursor import encode as encode_cursor
from ..log.reader import read_events
from ..log.retention import rotate_epoch
from ..metrics import metrics
from ..transport.connection import NATIVE
from ..transport.waiting_frames import WaitingFrame, pack, size_of, unpack
from ..utils.concurrency import run_in_threadpool
from ..wire import frames
from .event_frames import ChangeFrames
from .incomplete_images import find_undecidable, restore
from .row_permissions import evaluate
from .subscription import CatchUp, CatchUpPlan, Delivery, Subscription
from .table import SubscriptionTable
from .tailer import LogTailer
from .topic import CollectionTopic

PAGE_BYTES = 256 * 1024  # of the images that are read, and of the frames, unless one is larger
MAX_BLOCKING = 0.002  # seconds for which the event loop makes frames without a break


@dataclass(frozen=True, slots=True)
class _Page:
    """The frames of the next events."""

    # the number of each event that the subscription must get, and its frames
    frames: list[tuple[int, list[WaitingFrame]]]
    # number of the last event that was read
    seq: int
    # bytes of the frames
    size: int


async def replay(
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
    writer, epoch = subscription.connection.writer, position.epoch
    # the last event up to which the client was sent all events that it must get, or a cursor
    sent = position.seq
    while (epoch, sent) != (tailer.epoch, tailer.seq):
        if epoch != tailer.epoch or sent > tailer.seq:
            return False
        async with writer.page_turn:
            # not read before the client has read the last page
            await writer.wait_drained()
            after = Position(epoch, sent)
            page = await _shared_page(topic, subscription, after, tailer.seq)
            if page is None:
                page = await run_in_threadpool(_read_page, topic, subscription, after, tailer.seq)
            if page is None:
                return False
            with writer.holding(page.size):
                for seq, waiting in page.frames:
                    await writer.wait_drained()
                    for frame in waiting:
                        writer.push(unpack(frame))
                    sent = seq
                    metrics.replayed += 1
                    catchup.plan = CatchUpPlan(Position(epoch, sent))
                if page.seq > sent:
                    await writer.wait_drained()
                    sent = page.seq
                    if subscription.connection.dialect == NATIVE:
                        cursor = encode_cursor(subscription.stream, epoch, sent)
                        writer.push(frames.encode(frames.cursor(subscription.name, cursor)))
    return True


async def _shared_page(
    topic: CollectionTopic, subscription: Subscription, after: Position, until: int
) -> _Page | None:
    """Return the frames of changes that were read for several subscriptions; None without them."""
    if subscription.query.check is not None:
        return None  # the time that a client waits must not depend on what others were shown
    changes = await topic.shared_replays.read(after, until)
    if not changes:
        return None
    waiting_events: list[tuple[int, list[WaitingFrame]]] = []
    size, began_at = 0, monotonic()
    for change in changes:
        if texts := change.texts(subscription):
            waiting = list(map(pack, texts))
            waiting_events.append((change.seq, waiting))
            size += size_of(waiting)
        if size > PAGE_BYTES:
            break
        if monotonic() - began_at > MAX_BLOCKING:
            await asyncio.sleep(0)
            began_at = monotonic()
    return _Page(waiting_events, change.seq, size)


def _read_page(
    topic: CollectionTopic, subscription: Subscription, after: Position, until: int
) -> _Page | None:
    """Return the frames of the events after a position; None if the log does not contain them.

    May use the ORM: not for event loops.
    """
    limits, seq = conf.limits, after.seq
    collection, table = topic.collection, topic.table
    changes = read_events(
        collection.database,
        subscription.stream,
        after.epoch,
        seq,
        limits.replay_events,
        until=until,
        max_bytes=PAGE_BYTES,
    )
    if not changes or changes[0].seq != seq + 1:
        return None
    waiting_events: list[tuple[int, list[WaitingFrame]]] = []
    size = 0
    for change in restore(collection, changes):
        if find_undecidable(collection, change, [subscription.query]):
            # otherwise the client would come back with the same cursor
            rotate_epoch(collection.database, [collection.stream], epoch=after.epoch)
            return None
        seq = change.seq or seq
        for visible, delivery in _find_deliveries(collection, table, subscription, change):
            texts = ChangeFrames(visible, limits.event_bytes, replayed=True).texts([delivery])
            waiting = [pack(text) for text in texts]
            waiting_events.append((seq, waiting))
            size += size_of(waiting)
        if size > PAGE_BYTES:
            break
    return _Page(waiting_events, seq, size)


def _find_deliveries(
    collection: Collection, table: SubscriptionTable, subscription: Subscription, change: Change
) -> Iterator[tuple[Change, Delivery]]:
    """Yield the change as the subscription must get it, if it must."""
    visible = apply_soft_delete(collection.decode(change), collection)
    if visible is None:
        return
    if subscription.query.check is not None:
        for delivery in evaluate(collection, visible, [subscription]):
            yield visible, delivery
    elif event := table.event_for(subscription, visible):
        yield visible, (subscription, event)
