"""The slow path: permissions that must look at each row (``has_object_permission``).

They may query, so they run in a worker thread, one change after the other, in order, off the
hub's fan-out. Bounded: where more than `BACKLOG` changes wait, their connections are asked to
come back later, and then read the log at their own pace. Measured: ``asked`` and ``seconds``.
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
from .table import Delivery, Subscription

logger = logging.getLogger(__name__)

MAX_BACKLOG = 1000  # changes of one collection that may wait for their checks
SLOW_SECONDS = 1.0  # seconds of one change's checks that are worth a warning
RETRY_MS = 5000


@dataclass(slots=True)
class RowPermissionStats:
    """What the checks of one process have cost so far."""

    evaluated: int = 0
    seconds: float = 0.0
    waiting: int = 0


stats = RowPermissionStats()


class RowPermissionQueue:
    """Decides, in order, who of those that must be asked sees a change. One a collection."""

    def __init__(
        self, collection: Collection, deliver: Callable[[Change, list[Delivery]], None]
    ) -> None:
        self._collection = collection
        self._deliver = deliver
        self._waiting: deque[tuple[Change, dict[Subscription, int]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, change: Change, subscriptions: list[Subscription]) -> None:
        """Decide about this change when those before it are decided."""
        if len(self._waiting) >= MAX_BACKLOG:
            for subscription in subscriptions:
                subscription.connection.close(CloseCode.OVERLOADED, RETRY_MS)
            return
        for subscription in subscriptions:
            if subscription.pending_row_checks is None:
                subscription.pending_row_checks = deque()
            subscription.pending_row_checks.append(change.seq or 0)
        self._waiting.append((change, {each: each.permissions_version for each in subscriptions}))
        stats.waiting += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Decide nothing more."""
        stats.waiting -= len(self._waiting)
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        try:
            while self._waiting:
                change, subscriptions = self._waiting[0]
                try:
                    found = await run_in_threadpool(
                        evaluate, self._collection, change, subscriptions
                    )
                except Exception as error:
                    logger.warning("Permissions could not be checked: %r", error)
                    for subscription in subscriptions:
                        subscription.connection.close(CloseCode.UNAVAILABLE)
                    found = []
                self._waiting.popleft()
                stats.waiting -= 1
                # what was asked before its rights changed counts no more
                live = {
                    s
                    for s, rights in subscriptions.items()
                    if s.permissions_version == rights and _pop_pending(s, change.seq or 0)
                }
                try:
                    self._deliver(change, [(s, event) for s, event in found if s in live])
                except Exception:
                    logger.exception("A change could not be delivered.")
                    for subscription in live:
                        subscription.connection.close(CloseCode.INTERNAL_ERROR)
        finally:
            self._task = None


def _pop_pending(subscription: Subscription, seq: int) -> bool:
    """Whether it still waits for this event, which it now does no more.

    What begins anew reads the log instead, and may wait for later ones by now.
    """
    held, waits = (
        subscription.connection.subscriptions.get(subscription.name),
        subscription.pending_row_checks,
    )
    if held is not subscription or not waits or waits[0] != seq:
        return False
    waits.popleft()
    return True


def evaluate(
    collection: Collection, change: Change, subscriptions: Iterable[Subscription]
) -> list[Delivery]:
    """Who sees the change, and as what. In a worker thread: may use the ORM."""
    started = time.monotonic()
    before, after = _RowState.of(collection, change.before), _RowState.of(collection, change.after)
    found: list[Delivery] = []
    for subscription in subscriptions:
        was = before is not None and before.is_visible_to(subscription)
        now = after is not None and after.is_visible_to(subscription)
        event = subscription.frame_spec.event_of(change, was, now)
        if event is not None:
            found.append((subscription, event))
    took = time.monotonic() - started
    stats.seconds += took
    if took > SLOW_SECONDS:
        logger.warning("Permission checks of one change took %.1f s; narrow visible_to.", took)
    return found


class _RowState:
    """One state of a row, asked about once an identity and view."""

    def __init__(self, row: Row, instance: models.Model) -> None:
        self._row = row
        self._instance = instance
        self._answers: dict[Any, bool] = {}

    @classmethod
    def of(cls, collection: Collection, image: Image | None) -> _RowState | None:
        if image is None:
            return None
        instance = collection.codec.to_instance(collection.model_class, image, collection.database)
        return cls(collection.row(image), instance)

    def is_visible_to(self, subscription: Subscription) -> bool:
        view = subscription.query
        if not view.filter.matches(self._row):
            return False
        if view.check is None:
            return True
        key = id(subscription.connection.identity), view.filter
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = self._ask(view.check)
        return answer

    def _ask(self, check: RowCheck) -> bool:
        stats.evaluated += 1
        try:
            return check(self._row, self._instance)
        except DatabaseFailure:
            raise  # nothing is known: the connection comes back and reads the log
        except Exception:
            logger.exception("has_object_permission failed: the row is not shown.")
            return False


def is_visible(collection: Collection, subscription: Subscription, image: Image) -> bool:
    """Whether a subscription may see a row as it stands. In a worker thread: may use the ORM."""
    seen = _RowState.of(collection, image)
    return seen is not None and seen.is_visible_to(subscription)
