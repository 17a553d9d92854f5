"""One handler: reads the log from its position, calls the function, and stores the position."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.models import F
from django.utils import timezone

from ..declarations.collection import Collection
from ..declarations.handler import ChangeHandler
from ..declarations.registry import registry
from ..events import Change, LogAppended
from ..log.cursor import Position
from ..log.derived import derive
from ..models import Handler
from ..pubsub.broker import broker
from ..utils.project_code import ProjectCodeFailed
from .changes import (
    PositionLost,
    change_for,
    changes_after,
    committed_change,
    number_changes,
    stream_head,
)
from .leases import Leases

logger = logging.getLogger(__name__)

# seconds before a change is handled again: after the first failure, and the longest delay
RETRY_DELAYS = (0.5, 60.0)
MAX_ERROR_LENGTH = 500  # characters of an exception that are stored


class Outcome(Enum):
    """The result of `HandlerRunner.run_batch`."""

    # all committed changes were handled
    IDLE = "idle"
    # there may be more changes
    MORE = "more"
    # the function has raised; the change must be handled again after `retry_delay`
    FAILED = "failed"
    # the function has failed `max_attempts` times, and is not called any more
    STOPPED = "stopped"
    # another process calls the function
    ELSEWHERE = "elsewhere"


class _LeaseLost(Exception):
    """Another process calls the handler now."""


class HandlerRunner:
    """Calls one handler. Used by one thread.

    ``must_stop`` returns whether no further change must be handled.
    """

    def __init__(
        self, handler: ChangeHandler, leases: Leases, must_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.handler = handler
        # seconds to wait after a failure
        self.retry_delay = RETRY_DELAYS[0]
        self._leases = leases
        self._must_stop = must_stop
        # runs asynchronous functions; made for the first one
        self._loop: asyncio.Runner | None = None

    @property
    def collection(self) -> Collection:
        """The collection whose changes are handled. Raises ``UnknownCollection``."""
        return registry.get(self.handler.collection)

    def run_batch(self) -> Outcome:
        """Handle the next changes. Raises the exceptions of the database."""
        collection, name = self.collection, self.handler.name
        using, stream = collection.database, collection.stream
        row = self._load_row(using, stream)
        if row.stopped_at is not None:
            return Outcome.STOPPED
        if not self._leases.acquire(using, name):
            return Outcome.ELSEWHERE
        row.refresh_from_db()  # as the process that had the lease before has stored it
        try:
            return self._handle_changes(row, collection)
        except _LeaseLost:
            self._leases.forget(using, name)
            return Outcome.ELSEWHERE

    def close(self) -> None:
        """Let another process call the function, and close the event loop."""
        try:
            if self._loop is not None:
                self._loop.run(sync_to_async(connections.close_all)())
                self._loop.close()
        finally:
            self._leases.release(self.collection.database, self.handler.name)

    def _load_row(self, using: str, stream: str) -> Handler:
        """Return the position. At the first time, it is that of the last change."""
        row = Handler.objects.using(using).filter(name=self.handler.name).first()
        if row is None:
            head = stream_head(using, stream)
            row, _ = Handler.objects.using(using).get_or_create(
                name=self.handler.name,
                defaults={"collection": stream, "epoch": head.epoch, "seq": head.seq},
            )
        return row

    def _handle_changes(self, row: Handler, collection: Collection) -> Outcome:
        using, stream, handler = collection.database, collection.stream, self.handler
        if collection in registry.showing_related(using):
            for name in derive(using):
                broker.publish(LogAppended(name, numbered=True))
        if number_changes(using, stream):
            broker.publish(LogAppended(stream, numbered=True))
        position = Position(row.epoch, row.seq)
        try:
            if row.collection != stream:
                raise PositionLost
            changes = changes_after(using, stream, position, handler.batch_size)
        except PositionLost:
            return self._continue_at_head(row, stream)
        if not changes:
            return Outcome.IDLE
        filters = handler.filters
        filter = None if filters is None else collection.parse_trusted_filter(filters)
        passed = False  # whether the position is after changes that do not concern the handler
        for change in changes:
            if self._must_stop():
                break
            if not self._leases.is_valid(using, handler.name):
                raise _LeaseLost
            position = Position(position.epoch, change.seq or 0)
            visible = change_for(handler, filter, collection, change)
            passed = visible is None
            if visible is None:
                continue
            if self._attempt(row, partial(self._handle, collection, visible)):
                self._store(row, stream, position)
            elif (outcome := self._fail(row, position)) is not Outcome.MORE:
                return outcome
        if passed:
            self._store(row, stream, position)
        return Outcome.MORE

    def _handle(self, collection: Collection, change: Change) -> None:
        self._call(self.handler.function, committed_change(collection, change))

    def _continue_at_head(self, row: Handler, stream: str) -> Outcome:
        """Continue after the last change, because the next ones were deleted."""
        logger.error(
            "Handler %r: the log of %r does not contain the changes after its position any more. "
            "It continues with the next change that is committed.",
            self.handler.name,
            self.handler.collection,
        )
        # read first: changes that are committed while `on_lost` runs are not lost
        head = stream_head(row._state.db or "", stream)
        on_lost = self.handler.on_lost
        if on_lost is not None and not self._attempt(row, partial(self._call, on_lost)):
            return self._fail(row, head)
        self._store(row, stream, head)
        return Outcome.MORE

    def _call(self, function: Callable[..., Any], *args: Any) -> None:
        result = function(*args)
        if inspect.isawaitable(result):
            if self._loop is None:
                self._loop = asyncio.Runner()
            self._loop.run(_wait(result))

    def _close_lost_connections(self) -> None:
        """Close connections that cannot be used, also of the thread of asynchronous functions."""
        _close_lost_connections()
        if self._loop is not None:
            self._loop.run(sync_to_async(_close_lost_connections)())

    def _attempt(self, row: Handler, call: Callable[[], None]) -> bool:
        """Call code of the project; return False, and log its exception, if it raises one."""
        try:
            call()
        except (Exception, asyncio.CancelledError) as error:
            function = getattr(self.handler.function, "__qualname__", "on_change")
            failure = ProjectCodeFailed(f"handler {self.handler.name!r}", function)
            failure.__cause__ = error
            failure.log()
            row.last_error = f"{type(error).__name__}: {error}"[:MAX_ERROR_LENGTH]
            self._close_lost_connections()
            return False
        return True

    def _fail(self, row: Handler, position: Position) -> Outcome:
        """Count a failure; after the last attempt, stop the handler or skip the change.

        Returns ``MORE`` if the change was skipped.
        """
        handler = self.handler
        self._update(row, failures=F("failures") + 1, last_error=row.last_error)
        row.refresh_from_db(fields=["failures"])
        if handler.max_attempts is None or row.failures < handler.max_attempts:
            first, longest = RETRY_DELAYS
            self.retry_delay = min(first * 2.0 ** min(row.failures - 1, 30), longest)
            return Outcome.FAILED
        if handler.on_failure == "skip":
            logger.error(
                "Handler %r skips change %s of %r after %s attempts: %s",
                handler.name,
                position.seq,
                row.collection,
                row.failures,
                row.last_error,
            )
            self._update(
                row, seq=position.seq, epoch=position.epoch, collection=row.collection, failures=0
            )
            row.failures = 0
            return Outcome.MORE
        logger.error(
            "Handler %r is stopped at change %s of %r after %s attempts: %s",
            handler.name,
            position.seq,
            row.collection,
            row.failures,
            row.last_error,
        )
        self._update(row, stopped_at=timezone.now())
        return Outcome.STOPPED

    def _store(self, row: Handler, stream: str, position: Position) -> None:
        """Store the position of a change, after the function has returned."""
        self._update(
            row,
            collection=stream,
            epoch=position.epoch,
            seq=position.seq,
            failures=0,
            last_error="",
        )

    def _update(self, row: Handler, **values: Any) -> None:
        rows = Handler.objects.using(row._state.db).filter(pk=row.pk, owner=self._leases.owner)
        if rows.update(updated_at=timezone.now(), **values) == 0:
            raise _LeaseLost


def _close_lost_connections() -> None:
    """Close connections that cannot be used, unless a transaction, as of a test, needs them."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


async def _wait(result: Any) -> None:
    await result
