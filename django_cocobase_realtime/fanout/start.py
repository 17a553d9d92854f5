"""Bringing a subscription up to date before it goes live: snapshot, then what it missed.

No buffer is needed where there is a log: the stream is read from it until the subscription has
come to where the feed is, and then, in the same turn of the loop, goes live.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db import DatabaseError

from ..collection import Collection
from ..conf import conf
from ..log.cursor import Position
from ..log.cursor import encode as encode_cursor
from ..log.read import page
from ..wire import native
from ..wire.codes import CloseCode
from ..workers import run
from . import snapshot
from .frames import ChangeFrames
from .snapshot import Wanted

if TYPE_CHECKING:
    from .feed import Feed
    from .subscriptions import Subscription, SubscriptionTable

logger = logging.getLogger(__name__)


async def start(
    subscription: Subscription,
    collection: Collection,
    table: SubscriptionTable,
    feed: Feed | None,
    after: Position | None,
    wanted: Wanted | None,
) -> None:
    """Send the snapshot, replay from ``after`` (by default from where the snapshot began), go live.

    What goes wrong closes the connection: its client comes back with its cursor.
    """
    connection = subscription.connection
    try:
        if feed is None:
            await _without_log(subscription, collection, table, wanted)
            return
        position = after or feed.position
        if wanted is not None:
            cursor = encode_cursor(collection.name, position.epoch, position.seq)
            await _send_snapshot(subscription, collection, wanted, cursor)
        if await _replay(subscription, collection, table, feed, position):
            table.add(subscription)
            subscription.seen = feed.seq
            subscription.starting = None
        else:
            connection.close(CloseCode.POSITION_LOST)
    except DatabaseError as error:
        logger.warning("A subscription could not be started: %r", error)
        connection.close(CloseCode.UNAVAILABLE)
    except Exception:
        logger.exception("A subscription could not be started.")
        connection.close(CloseCode.INTERNAL_ERROR)


async def _replay(
    subscription: Subscription,
    collection: Collection,
    table: SubscriptionTable,
    feed: Feed,
    position: Position,
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
        changes = await run(
            page,
            feed.using,
            collection.name,
            position.epoch,
            seq,
            limits.replay_events,
            upto=feed.seq,
        )
        if not changes or changes[0].seq != seq + 1:
            return False
        for change in changes:
            seq = change.seq or seq
            row = table.row(change)
            if row is not None and subscription.wants(change, row):
                await writer.drained()
                frames = ChangeFrames(change, limits.event_bytes, replayed=True)
                for text in frames.texts([subscription]):
                    writer.push(text)
                told = seq
        if seq > told:
            await writer.drained()
            told = seq
            cursor = encode_cursor(collection.name, position.epoch, seq)
            writer.push(native.encode(native.cursor(subscription.name, cursor)))
    return True


async def _send_snapshot(
    subscription: Subscription, collection: Collection, wanted: Wanted, cursor: str | None
) -> None:
    writer = subscription.connection.writer
    keys = await run(snapshot.find, collection, subscription, wanted)
    truncated = len(keys) > wanted.limit
    keys = keys[: wanted.limit]
    pages = [keys[i : i + snapshot.PAGE] for i in range(0, len(keys), snapshot.PAGE)] or [[]]
    for number, part in enumerate(pages, 1):
        documents = await run(snapshot.read, collection, subscription, part) if part else []
        more = number < len(pages)
        frame = native.snapshot(subscription.name, documents, cursor, more=more)
        if truncated and not more:
            frame["truncated"] = True
        await writer.drained()
        writer.push(native.encode(frame))


async def _without_log(
    subscription: Subscription,
    collection: Collection,
    table: SubscriptionTable,
    wanted: Wanted | None,
) -> None:
    """Without a log, what happens during the snapshot is held back and follows it."""
    subscription.held = []
    table.add(subscription)
    if wanted is not None:
        await _send_snapshot(subscription, collection, wanted, None)
    held, subscription.held = subscription.held, None
    subscription.starting = None
    for text in held or ():
        subscription.connection.writer.push(text)
