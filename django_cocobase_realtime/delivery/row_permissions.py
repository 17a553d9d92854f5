"""Row permissions (``has_object_permission``), which decide about each row and are slower.

They may query the database, so they run in a worker thread, for one change after the other. The
changes wait in a bounded queue: if there are more than `MAX_BACKLOG`, the connections concerned
are closed with a code after which clients reconnect later, and resume from the log at their own
pace. `stats` measures what the permissions cost.

The time that a permission takes must not reveal what a hidden row contains. Therefore a permission
is asked about all rows that the filter of the permission matches, and the client's
filter is evaluated only on rows that the permission has allowed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.db import InterfaceError, OperationalError, models

from ..declarations.authorization import RowCheck
from ..declarations.collection import Collection
from ..events import Change, Image
from ..filters import Row
from ..identity import Identity
from ..metrics import metrics
from ..utils.concurrency import run_in_threadpool, set_owner
from ..utils.fair_queue import Owner
from ..utils.project_code import ProjectCodeFailed
from ..utils.repeated_log import log_repeated, omitted_text, repeated_log
from ..wire.codes import CloseCode
from .subscription import Delivery, Subscription

logger = logging.getLogger(__name__)

# changes of one collection that may wait in the queue
MAX_BACKLOG = 1000
# if the permissions take longer for one change, a warning is logged
SLOW_SECONDS = 1.0
# `retry_after_ms` of connections that are closed because the queue is full
RETRY_MS = 5000


@dataclass(slots=True)
class RowPermissionStats:
    """Measurements of the row permissions of this process."""

    # calls of has_object_permission
    evaluated: int = 0
    # seconds that evaluations took
    seconds: float = 0.0
    # changes that wait in the queues of all collections
    waiting: int = 0


stats = RowPermissionStats()


class RowPermissionQueue:
    """The changes of one collection that wait for row permissions. They are evaluated in order."""

    def __init__(
        self, collection: Collection, deliver: Callable[[Change, list[Delivery]], None]
    ) -> None:
        self._collection = collection
        # called with each change and the allowed deliveries
        self._deliver = deliver
        # changes, each with its subscriptions and their permissions_version at that time
        self._queue: deque[tuple[Change, dict[Subscription, int]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, change: Change, subscriptions: list[Subscription]) -> None:
        """Add a change, and the subscriptions to which it may be delivered."""
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
        """Empty the queue, and deliver nothing more."""
        stats.waiting -= len(self._queue)
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        set_owner(Owner(self._collection.stream), self._collection.stream)
        try:
            while self._queue:
                change, versions = self._queue[0]
                try:
                    deliveries = await run_in_threadpool(
                        evaluate, self._collection, change, versions
                    )
                except Exception as error:
                    text, name = "Permissions of %r could not be checked: %r", self._collection.name
                    log_repeated(logger, logging.WARNING, text, name, error, kind=name)
                    for subscription in versions:
                        subscription.connection.close(CloseCode.UNAVAILABLE)
                    deliveries = []
                self._queue.popleft()
                stats.waiting -= 1
                # results for permissions that have changed in the meantime are not used
                valid = {
                    subscription
                    for subscription, version in versions.items()
                    if subscription.permissions_version == version
                    and _pop_pending(subscription, change.seq or 0)
                }
                allowed = [delivery for delivery in deliveries if delivery[0] in valid]
                metrics.delivered += len(allowed)
                metrics.filtered += len(valid) - len(allowed)
                try:
                    self._deliver(change, allowed)
                except Exception:
                    logger.exception("A change could not be delivered.")
                    for subscription in valid:
                        subscription.connection.close(CloseCode.INTERNAL_ERROR)
        finally:
            self._task = None


def _pop_pending(subscription: Subscription, seq: int) -> bool:
    """Remove an event from the subscription's pending ones; return False if it is not the first.

    It is not if the subscription was suspended, because it then reads the event from the log.
    """
    pending = subscription.pending_row_checks
    if not subscription.is_attached or not pending or pending[0] != seq:
        return False
    pending.popleft()
    return True


def evaluate(
    collection: Collection, change: Change, subscriptions: Iterable[Subscription]
) -> list[Delivery]:
    """Return the deliveries of a change that row permissions allow.

    May use the ORM, so it must not be called in an event loop.
    """
    started_at = time.monotonic()
    before = _RowState.of(collection, change.before)
    after = _RowState.of(collection, change.after)
    deliveries: list[Delivery] = []
    for subscription in subscriptions:
        needs_old = change.op == "deleted" or subscription.request.transitions
        matched = needs_old and before is not None and before.is_visible_to(subscription)
        matches = after is not None and after.is_visible_to(subscription)
        event = subscription.frame_spec.event_for(change, matched, matches)
        if event is not None:
            deliveries.append((subscription, event))
    seconds = time.monotonic() - started_at
    stats.seconds += seconds
    if seconds > SLOW_SECONDS:
        logger.warning(
            "has_object_permission took %.1f s for one change. Let visible_to exclude more rows.",
            seconds,
        )
    return deliveries


class _RowState:
    """A row before or after a change. A permission is asked once per identity."""

    def __init__(self, row: Row, instance: models.Model | None) -> None:
        self._row = row
        # None if the model does not accept the values, so that no permission can decide
        self._instance = instance
        # the identities that were decided about, each with the results of its permissions. Keyed by
        # `id`, which stays unique because the identity is kept, too
        self._results: dict[int, tuple[Identity, list[tuple[RowCheck, bool]]]] = {}

    @classmethod
    def of(cls, collection: Collection, image: Image | None) -> _RowState | None:
        if image is None:
            return None
        try:
            instance = collection.codec.to_instance(
                collection.model_class, image, collection.database, decoded=True
            )
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            omitted = repeated_log.admit(("instance", collection.name, type(error)))
            if omitted is not None:
                logger.exception(
                    "A row of collection %r is treated as not visible, because no instance of the "
                    "model can be made of it.%s",
                    collection.name,
                    omitted_text(omitted),
                )
            instance = None
        return cls(collection.row(image), instance)

    def is_visible_to(self, subscription: Subscription) -> bool:
        query = subscription.query
        if query.check is None:
            return query.filter.matches(self._row)
        return (
            query.candidates.matches(self._row)
            and self._is_allowed(subscription.connection.identity, query.check)
            and query.filter.matches(self._row)
        )

    def _is_allowed(self, identity: Identity | None, check: RowCheck) -> bool:
        if identity is None or self._instance is None:
            return False
        # not by equality: two identities may be equal although their users were read at different
        # times, and have other permissions
        _, results = self._results.setdefault(id(identity), (identity, []))
        for known, result in results:
            if known == check:
                return result
        result = self._check(check, self._instance)
        results.append((check, result))
        return result

    def _check(self, check: RowCheck, instance: models.Model) -> bool:
        stats.evaluated += 1
        try:
            return bool(check(self._row, instance))
        except ProjectCodeFailed as failure:
            failure.log()
            return False  # the row is treated as not visible


def is_visible(collection: Collection, subscription: Subscription, image: Image) -> bool:
    """Return whether a subscription may see a row.

    ``image`` has at least the fields of the filter; with a row permission, all fields. May use the
    ORM, so it must not be called in an event loop.
    """
    if subscription.query.check is None:
        return subscription.query.filter.matches(collection.row(image))
    state = _RowState.of(collection, image)
    return state is not None and state.is_visible_to(subscription)
