"""Permissions that decide about each row (``has_object_permission``): the slow path.

They may query the database, so they run in a worker thread, one change after the other and in
order, outside the fan-out. The queue is bounded: if more than `MAX_BACKLOG` changes wait, their
connections are closed with a code that asks the clients to come back later; they then read the
log at their own pace. `stats` measures what the checks cost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.db import Error as DatabaseFailure
from django.db import models

from ..declarations.authorization import RowCheck
from ..declarations.collection import Collection
from ..events import Change, Image
from ..filters import Row
from ..utils.concurrency import run_in_threadpool
from ..wire.codes import CloseCode
from .subscription import Delivery, Subscription

logger = logging.getLogger(__name__)

MAX_BACKLOG = 1000
"""Changes of one collection that may wait for their checks."""
SLOW_SECONDS = 1.0
"""Checks of one change that take longer are logged as a warning."""
RETRY_MS = 5000
"""``retry_after_ms`` of connections that are closed because of the backlog."""


@dataclass(slots=True)
class RowPermissionStats:
    """What the row permissions of this process have cost so far."""

    # calls of has_object_permission
    evaluated: int = 0
    # seconds spent in evaluations
    seconds: float = 0.0
    # changes in all queues
    waiting: int = 0


stats = RowPermissionStats()


class RowPermissionQueue:
    """Decides, in order, which row-checked subscriptions get a change. One per collection.

    ``deliver`` is called with each change and the deliveries that it is allowed to.
    """

    def __init__(
        self, collection: Collection, deliver: Callable[[Change, list[Delivery]], None]
    ) -> None:
        self._collection = collection
        self._deliver = deliver
        # changes with the subscriptions to decide about, and their permissions_version
        self._queue: deque[tuple[Change, dict[Subscription, int]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, change: Change, subscriptions: list[Subscription]) -> None:
        """Decide about a change after all earlier ones."""
        if len(self._queue) >= MAX_BACKLOG:
            for subscription in subscriptions:
                subscription.connection.close(CloseCode.OVERLOADED, RETRY_MS)
            return
        for subscription in subscriptions:
            if subscription.pending_row_checks is None:
                subscription.pending_row_checks = deque()
            subscription.pending_row_checks.append(change.seq or 0)
        self._queue.append((change, {s: s.permissions_version for s in subscriptions}))
        stats.waiting += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Drop the queue."""
        stats.waiting -= len(self._queue)
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        try:
            while self._queue:
                change, versions = self._queue[0]
                try:
                    deliveries = await run_in_threadpool(
                        evaluate, self._collection, change, versions
                    )
                except Exception as error:
                    logger.warning("Permissions could not be checked: %r", error)
                    for subscription in versions:
                        subscription.connection.close(CloseCode.UNAVAILABLE)
                    deliveries = []
                self._queue.popleft()
                stats.waiting -= 1
                # answers given for permissions that have changed since do not count
                valid = {
                    subscription
                    for subscription, version in versions.items()
                    if subscription.permissions_version == version
                    and _pop_pending(subscription, change.seq or 0)
                }
                try:
                    self._deliver(change, [each for each in deliveries if each[0] in valid])
                except Exception:
                    logger.exception("A change could not be delivered.")
                    for subscription in valid:
                        subscription.connection.close(CloseCode.INTERNAL_ERROR)
        finally:
            self._task = None


def _pop_pending(subscription: Subscription, seq: int) -> bool:
    """Remove an event from those the subscription waits for. Return False if it does not wait.

    A subscription that was authorized again reads the log instead, and may wait for later events.
    """
    pending = subscription.pending_row_checks
    if not subscription.is_attached or not pending or pending[0] != seq:
        return False
    pending.popleft()
    return True


def evaluate(
    collection: Collection, change: Change, subscriptions: Iterable[Subscription]
) -> list[Delivery]:
    """Return the deliveries that row permissions allow. May use the ORM: not for event loops."""
    started_at = time.monotonic()
    before = _RowState.of(collection, change.before)
    after = _RowState.of(collection, change.after)
    deliveries: list[Delivery] = []
    for subscription in subscriptions:
        matched = before is not None and before.is_visible_to(subscription)
        matches = after is not None and after.is_visible_to(subscription)
        event = subscription.frame_spec.event_for(change, matched, matches)
        if event is not None:
            deliveries.append((subscription, event))
    seconds = time.monotonic() - started_at
    stats.seconds += seconds
    if seconds > SLOW_SECONDS:
        logger.warning("Permission checks of one change took %.1f s; narrow visible_to.", seconds)
    return deliveries


class _RowState:
    """One state of a row. A permission is asked once per identity and filter."""

    def __init__(self, row: Row, instance: models.Model) -> None:
        self._row = row
        self._instance = instance
        self._answers: dict[Any, bool] = {}

    @classmethod
    def of(cls, collection: Collection, image: Image | None) -> _RowState | None:
        if image is None:
            return None
        instance = collection.codec.to_instance(
            collection.model_class, image, collection.database, decoded=True
        )
        return cls(collection.row(image), instance)

    def is_visible_to(self, subscription: Subscription) -> bool:
        query = subscription.query
        if not query.filter.matches(self._row):
            return False
        if query.check is None:
            return True
        key = id(subscription.connection.identity), query.filter
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = self._check(query.check)
        return answer

    def _check(self, check: RowCheck) -> bool:
        stats.evaluated += 1
        try:
            return check(self._row, self._instance)
        except DatabaseFailure:
            raise  # nothing is known: the client comes back and reads the log
        except Exception:
            logger.exception("has_object_permission failed: the row is not shown.")
            return False


def is_visible(collection: Collection, subscription: Subscription, image: Image) -> bool:
    """Return whether a subscription may see a row. May use the ORM: not for event loops."""
    state = _RowState.of(collection, image)
    return state is not None and state.is_visible_to(subscription)
