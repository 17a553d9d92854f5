"""The hub's background tasks that read and trim the log, and send cursors."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ..conf import conf
from ..declarations.registry import registry
from ..delivery.topics import TopicManager
from ..log.cursor import encode as encode_cursor
from ..log.retention import trim as trim_log
from ..rooms import retention
from ..transport.connection import NATIVE
from ..utils.concurrency import run_in_threadpool, set_owner
from ..utils.fair_queue import SERVER
from ..wire import frames

logger = logging.getLogger(__name__)

# seconds after which a background task is restarted that ended with an exception
RESTART_DELAY = 1.0
# average seconds between two trims of the log and of presence
TRIM_INTERVAL = 60.0
# seconds between two trims of the history of rooms, for which all of them are read
TRIM_HISTORY_INTERVAL = 3600.0
# seconds after which a subscription without events is sent its cursor
CURSOR_INTERVAL = 30.0
# seconds between two counts of the rows of aggregates, one of each collection, to verify them
VERIFY_INTERVAL = 180.0


async def run_forever(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a background task, restarting it after an exception so that it never dies silently."""
    set_owner(SERVER)  # not the client whose connection started the hub
    while True:
        try:
            await work()
            return
        except Exception:
            logger.exception("A background task of the hub failed and will be restarted.")
        await asyncio.sleep(RESTART_DELAY)


async def poll_log(topics: TopicManager) -> None:
    """Regularly look for new events in the log of followed collections.

    Normally they are announced, but a channel layer may lose messages, and some writers announce
    nothing: other programs, and on other databases than PostgreSQL processes without a layer.
    """
    while True:
        await asyncio.sleep(conf.log.poll)
        for using, positions in topics.positions().items():
            await topics.find_new(using, positions)


async def trim_logs() -> None:
    """Regularly trim the logs of all collections, including those that are not followed, and rooms.

    Every process does this, at random times.
    """
    while True:
        await asyncio.sleep(TRIM_INTERVAL * (0.5 + random.random()))  # noqa: S311
        settings = conf.log
        for using in registry.log_databases():
            trim = partial(
                trim_log, using, max_age=settings.max_age, max_events=settings.max_events
            )
            try:
                await run_in_threadpool(trim)
            except Exception as error:
                logger.warning("The log could not be trimmed: %r", error)
        try:
            await run_in_threadpool(retention.expire_presence)
            if _history_trim.is_due():
                await run_in_threadpool(retention.trim_history, settings.room_max_age)
                _history_trim.done()
        except Exception as error:
            logger.warning("Rooms could not be trimmed: %r", error)


class _HistoryTrim:
    """When this process last trimmed the history of rooms."""

    def __init__(self) -> None:
        self._at = float("-inf")

    def is_due(self) -> bool:
        return time.monotonic() - self._at > TRIM_HISTORY_INTERVAL

    def done(self) -> None:
        self._at = time.monotonic()


_history_trim = _HistoryTrim()


async def send_cursor_heartbeats(topics: TopicManager) -> None:
    """Regularly send cursors to subscriptions that get no events.

    Their old cursors would become useless when the log is trimmed.
    """
    while True:
        await asyncio.sleep(CURSOR_INTERVAL)
        for name, topic in list(topics.topics.items()):
            tailer, table = topic.tailer, topic.table
            if tailer is None:
                continue
            cursor = encode_cursor(name, tailer.epoch, tailer.seq)
            for subscription in table:
                if table.last_seq(subscription) >= tailer.seq or subscription.pending_row_checks:
                    continue
                subscription.last_seq = tailer.seq
                if subscription.connection.dialect == NATIVE:
                    frame = frames.cursor(subscription.name, cursor)
                    subscription.connection.writer.push(frames.encode(frame))


async def verify_aggregates(topics: TopicManager) -> None:
    """Regularly compare aggregates that are kept up to date with those of the rows.

    They differ if rows were changed in a way that is not captured.
    """
    while True:
        await asyncio.sleep(VERIFY_INTERVAL)
        for topic in list(topics.topics.values()):
            topic.live_queries.verify_next()
