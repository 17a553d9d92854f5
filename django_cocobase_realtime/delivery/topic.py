"""Topics: a topic delivers the changes of one collection to the subscriptions of this process."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from ..conf import conf
from ..declarations.collection import Collection
from ..declarations.soft_delete import apply_soft_delete
from ..events import Change, Event
from ..live_queries.fold import TooManyGroups
from ..log.cursor import Position
from ..log.log_reader import LogReader
from ..metrics import metrics
from ..transport.connection import Connection
from ..transport.fan_out import fan_out
from ..utils.concurrency import run_in_threadpool, set_owner
from ..utils.fair_queue import Owner
from ..utils.project_code import DATABASE_UNAVAILABLE
from ..wire.codes import CloseCode, ErrorCode
from .endings import TOO_MANY_GROUPS
from .event_frames import ChangeFrames
from .incomplete_images import find_undecidable, is_complete, restore
from .live_queries import LiveQueries
from .query import AuthorizedQuery
from .related_feed import RelatedFeed
from .row_permissions import RowPermissionQueue
from .shared_replays import SharedReplays
from .shared_snapshots import SharedSnapshots
from .subscription import Delivery, Subscription
from .table import SubscriptionTable
from .tailer import LogTailer

logger = logging.getLogger(__name__)


class CollectionTopic:
    """The subscriptions of this process to one collection. Belongs to one event loop."""

    def __init__(
        self,
        collection: Collection,
        on_position_lost: Callable[[], None],
        end_with_error: Callable[..., None],
        may_hold: Callable[[Subscription], bool],
    ) -> None:
        self.collection = collection
        # the live subscriptions
        self.table = SubscriptionTable(collection.schema)
        # follows the log; None for a collection without a log
        self.tailer: LogTailer | None = None
        # the hidden stream of the tables that the permissions depend on; None if there are none
        self.related: RelatedFeed | None = None
        # snapshots that several subscriptions are sent
        self.shared_snapshots = SharedSnapshots(collection, lambda: self.position, self._catch_up)
        # changes that several subscriptions replay
        self.shared_replays = SharedReplays(collection)
        # windows and aggregates
        self.live_queries = LiveQueries(
            collection,
            get_position=lambda: self.position,
            catch_up=self._catch_up,
            end=self.end_live_query,
        )
        # called if the log no longer contains the next events, so that they cannot be delivered
        self._on_position_lost = on_position_lost
        # ends a subscription that cannot continue
        self.end_with_error = end_with_error
        # returns whether the result of a subscription is within the limit of its client
        self.may_hold = may_hold
        # changes that wait for row permissions
        self._row_permissions = RowPermissionQueue(collection, self._deliver_row_checked)
        # changes without a log, the first of which has incomplete images; and what prepares them
        self._unrestored: deque[Change] = deque()
        self._restoration: asyncio.Task[None] | None = None

    def start_tailer(self, reader: LogReader, announce: Callable[[Event], None]) -> LogTailer:
        """Create the tailer, which follows the collection's log, and return it."""
        self.tailer = LogTailer(
            self.collection.stream,
            reader,
            self.collection.database,
            deliver=self.dispatch,
            on_position_lost=self._on_position_lost,
            announce=announce,
            is_complete=partial(is_complete, self.collection),
            restore=partial(restore, self.collection),
            related=self.related,
        )
        return self.tailer

    def stop(self) -> None:
        """Stop the tailer, shared reads and the evaluation of row permissions."""
        self.shared_snapshots.stop()
        self.shared_replays.stop()
        self.live_queries.stop()
        self._row_permissions.stop()
        if self._restoration is not None:
            self._restoration.cancel()
        if self.tailer is not None:
            self.tailer.stop()

    @property
    def position(self) -> Position | None:
        """The position of the last delivered change; None without a log."""
        return None if self.tailer is None else self.tailer.position

    def end_live_query(self, subscription: Subscription, error: Exception) -> None:
        """End a subscription whose live query cannot be read."""
        if isinstance(error, DATABASE_UNAVAILABLE):
            subscription.connection.close(CloseCode.UNAVAILABLE)
        elif isinstance(error, TooManyGroups):
            message = TOO_MANY_GROUPS.format(conf.limits.groups)
            self.end_with_error(subscription, ErrorCode.LIMIT_EXCEEDED, message)
        else:
            logger.error("A live query of %r cannot be read.", self.collection.name, exc_info=error)
            self.end_with_error(subscription)

    async def _catch_up(self) -> None:
        """Wait until all events that were committed before this call are delivered."""
        if self.tailer is not None:
            await self.tailer.wait_caught_up()

    # delivery

    def receive(self, change: Change) -> None:
        """Handle a change that came over the channel layer."""
        if change.seq is not None:
            if self.tailer is not None:
                self.tailer.receive(change)
        elif self._unrestored or not (self.tailer or is_complete(self.collection, change)):
            self._unrestored.append(change)
            if self._restoration is None:
                self._restoration = asyncio.get_running_loop().create_task(self._restore())
        else:
            self.dispatch(change)

    async def _restore(self) -> None:
        """Dispatch changes in order, those with incomplete images by the rows as they are."""
        set_owner(Owner(self.collection.stream), self.collection.stream)
        try:
            while self._unrestored:
                changes = list(self._unrestored)
                for change in await run_in_threadpool(restore, self.collection, changes):
                    self.dispatch(change)
                for _ in changes:
                    self._unrestored.popleft()
        except Exception as error:
            logger.warning("Rows of %r cannot be read: %r", self.collection.name, error)
            self._unrestored.clear()
            self._on_position_lost()
        finally:
            self._restoration = None

    def dispatch(self, change: Change) -> None:
        """Deliver a change to every subscription that must see it. No database, no waiting."""
        self.shared_snapshots.note(change)
        if find_undecidable(self.collection, change, self._queries()):
            if self.tailer is not None and change.seq is not None:
                self.tailer.rotate_epoch()
            else:
                self._on_position_lost()
            return
        visible = apply_soft_delete(self.collection.decode(change), self.collection)
        self.shared_replays.note(change, visible)
        if visible is None:
            metrics.filtered += self.table.size
            return
        recipients, single = self.table.find_recipients(visible)
        delivered = len(single)
        if recipients or single:
            frames = ChangeFrames(visible, conf.limits.event_bytes)
            for group in recipients:
                fan_out(group.writers, frames.text(group.frame_spec, group.event), frames.cursor)
                delivered += len(group.writers)
            if single:
                self._deliver(frames, single, visible.seq or 0)
            metrics.observe_delivery(visible.at)
        is_partial = change.before is None and change.op != "created"
        self.live_queries.dispatch(visible, is_partial=is_partial)
        row_checked = self.table.find_row_checked(visible)
        metrics.delivered += delivered
        metrics.filtered += self.table.size - delivered - len(row_checked)
        if row_checked:
            self._row_permissions.put(visible, row_checked)

    def _queries(self) -> Iterator[AuthorizedQuery]:
        """Yield the queries of all subscriptions, of which most changes need none."""
        for subscription in self.table:
            yield subscription.query
        yield from self.live_queries.authorized()

    def _deliver_row_checked(self, change: Change, deliveries: list[Delivery]) -> None:
        self._deliver(ChangeFrames(change, conf.limits.event_bytes), deliveries, change.seq or 0)
        if deliveries:
            metrics.observe_delivery(change.at)

    def _deliver(self, frames: ChangeFrames, deliveries: Iterable[Delivery], seq: int) -> None:
        """Deliver a change per connection, to its matching subscriptions; buffer if needed."""
        by_connection: dict[Connection, list[Delivery]] = {}
        for delivery in deliveries:
            by_connection.setdefault(delivery[0].connection, []).append(delivery)
        for connection, matching in by_connection.items():
            for subscription, _ in matching:
                subscription.last_seq = seq
            live = [delivery for delivery in matching if delivery[0].buffer is None]
            for text in frames.texts(live):
                connection.writer.push_event(text, frames.cursor)
            for delivery in matching:
                buffer = delivery[0].buffer
                if buffer is not None:
                    for text in frames.texts([delivery]):
                        buffer.append(text)
