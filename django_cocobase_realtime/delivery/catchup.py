"""Bringing a subscription up to date before it goes live: snapshot, then what it missed.

No buffer is needed where there is a log: the stream is read from it until the subscription has
come to where the feed is, and then, in the same turn of the loop, goes live.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.db import Error as DatabaseFailure

from ..conf import conf
from ..declarations.collection import Collection
from ..declarations.soft_delete import apply_soft_delete
from ..events import Change
from ..log.cursor import Position
from ..log.cursor import encode as encode_cursor
from ..log.reader import read_events
from ..transport.connection import NATIVE
from ..utils.concurrency import run_in_threadpool
from ..wire import frames
from ..wire.codes import CloseCode
from . import snapshot
from .event_frames import ChangeFrames
from .row_permissions import evaluate
from .snapshot import Document
from .table import CatchUpPlan, Delivery, SnapshotQuery, SubscriptionTable

if TYPE_CHECKING:
    from .table import Subscription
    from .tailer import LogTailer
    from .topic import CollectionTopic

logger = logging.getLogger(__name__)


async def catch_up(
    subscription: Subscription,
    audience: CollectionTopic,
    feed: LogTailer | None,
    begin: CatchUpPlan,
) -> None:
    """Send the snapshot, replay from ``after`` (by default from where the snapshot began), go live.

    ``subscription.begin`` is kept at what is yet to do, should it have to begin again.

    What goes wrong closes the connection: its client comes back with its cursor.
    """
    connection = subscription.connection
    try:
        if feed is None:
            await _catch_up_without_log(subscription, audience, begin.snapshot)
            return
        position = begin.after or feed.position
        if begin.snapshot is not None:
            # should it begin anew, then with all that happened since its first page
            subscription.plan = CatchUpPlan(position, begin.snapshot)
            cursor = encode_cursor(subscription.collection, position.epoch, position.seq)
            await _send_snapshot(subscription, audience.collection, begin.snapshot, cursor)
            subscription.plan = CatchUpPlan(position)
        if await _replay(subscription, audience, feed, position):
            audience.table.add(subscription)
            subscription.last_seq = feed.seq
            subscription.catchup_task = subscription.plan = None
        else:
            connection.close(CloseCode.POSITION_LOST)
    except DatabaseFailure as error:
        logger.warning("A subscription could not be started: %r", error)
        connection.close(CloseCode.UNAVAILABLE)
    except Exception:
        logger.exception("A subscription could not be started.")
        connection.close(CloseCode.INTERNAL_ERROR)


async def _replay(
    subscription: Subscription, audience: CollectionTopic, feed: LogTailer, position: Position
) -> bool:
    """Send what happened between ``position`` and the feed's; False where the log has it no more.

    When it returns True the feed has not moved since the last look.
    """
    writer = subscription.connection.writer
    limits = conf.limits
    seq = told = position.seq
    while (position.epoch, seq) != (feed.epoch, feed.seq):
        if position.epoch != feed.epoch or seq > feed.seq:
            return False
        changes = await run_in_threadpool(
            read_events,
            feed.using,
            subscription.collection,
            position.epoch,
            seq,
            limits.replay_events,
            until=feed.seq,
        )
        if not changes or changes[0].seq != seq + 1:
            return False
        missed = await run_in_threadpool(
            _find_missed, audience.collection, audience.table, subscription, changes
        )
        for change, delivery in missed:
            await writer.wait_drained()
            for text in ChangeFrames(change, limits.event_bytes, replayed=True).texts([delivery]):
                writer.push(text)
            told = change.seq or told
            subscription.plan = CatchUpPlan(Position(position.epoch, told))
        seq = changes[-1].seq or seq
        if seq > told:
            await writer.wait_drained()
            told = seq
            if subscription.connection.dialect != NATIVE:
                continue
            cursor = encode_cursor(subscription.collection, position.epoch, seq)
            writer.push(frames.encode(frames.cursor(subscription.name, cursor)))
    return True


def _find_missed(
    collection: Collection,
    table: SubscriptionTable,
    subscription: Subscription,
    changes: list[Change],
) -> list[tuple[Change, Delivery]]:
    """Those of the changes that the subscription must be told of. In a worker thread."""
    found: list[tuple[Change, Delivery]] = []
    for change in changes:
        seen = apply_soft_delete(change, collection)
        if seen is None:
            continue
        if subscription.query.check is not None:
            found += [(seen, delivery) for delivery in evaluate(collection, seen, [subscription])]
        elif event := table.event_for(subscription, seen):
            found.append((seen, (subscription, event)))
    return found


async def _send_snapshot(
    subscription: Subscription, collection: Collection, wanted: SnapshotQuery, cursor: str | None
) -> None:
    writer = subscription.connection.writer
    # where rows are checked one by one, more must be looked at than are shown
    checked = subscription.query.check is not None
    most = conf.limits.snapshot_documents if checked else wanted.limit
    keys = await run_in_threadpool(
        snapshot.select_keys, collection, subscription, wanted.order, most
    )
    left, waiting = wanted.limit, keys[:most]
    ready: list[Document] = []
    more = True
    while more:
        # filled, and one more is known of, before a page goes out: neither the number of pages nor
        # what they say of others tells of rows that a check hides
        size = min(snapshot.PAGE_SIZE, left)
        while waiting and len(ready) <= size:
            part, waiting = waiting[: snapshot.PAGE_SIZE], waiting[snapshot.PAGE_SIZE :]
            ready += await run_in_threadpool(
                snapshot.load_documents, collection, subscription, part
            )
        documents, ready = ready[:size], ready[size:]
        left -= len(documents)
        more = bool(ready) and left > 0
        truncated = bool(ready) or len(keys) > most
        for each, follows in _split_pages(documents, conf.limits.event_bytes):
            frame = frames.snapshot(subscription.name, each, cursor, more=more or follows)
            if truncated and not frame["more"]:
                frame["truncated"] = True
            await writer.wait_drained()
            writer.push(frames.encode(frame))


def _split_pages(documents: list[Document], most: int) -> Iterator[tuple[list[Any], bool]]:
    """Documents in parts of about ``most`` bytes, each with whether another one follows.

    One that is larger by itself comes as its id, marked as truncated.
    """
    part: list[Any] = []
    size = 0
    for document in documents:
        length = len(frames.encode(document).encode())
        if length > most:
            document, length = {"id": document["id"], "truncated": True}, 0
        if part and size + length > most:
            yield part, True
            part, size = [], 0
        part.append(document)
        size += length
    yield part, False


async def _catch_up_without_log(
    subscription: Subscription, audience: CollectionTopic, wanted: SnapshotQuery | None
) -> None:
    """Without a log, what happens during the snapshot is held back and follows it."""
    subscription.buffered = subscription.buffered or []
    audience.table.add(subscription)
    if wanted is not None:
        await _send_snapshot(subscription, audience.collection, wanted, None)
    subscription.catchup_task = subscription.plan = None
    flush_buffered(subscription, audience)


def flush_buffered(subscription: Subscription, audience: CollectionTopic) -> None:
    """Send what was held back, and hold back no more."""
    held, subscription.buffered = subscription.buffered, None
    audience.table.add(subscription)
    for text in held or ():
        subscription.connection.writer.push(text)
