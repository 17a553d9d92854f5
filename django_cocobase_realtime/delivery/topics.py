"""The topics of a process, and the subscriptions of its connections.

A process follows a collection while at least one of its connections is subscribed to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import ParamSpec, TypeVar

from ..conf import conf
from ..declarations.collection import Collection
from ..declarations.registry import registry
from ..events import Change, Event, LogAppended
from ..log.cursor import Position
from ..log.log_reader import LogReader, create_reader
from ..log.reader import StreamRange
from ..pubsub.groups import JOIN_TIMEOUT, JOIN_TIMEOUT_DURABLE, GroupMemberships
from ..pubsub.layer import channel_layer, collection_group, is_in_memory
from ..pubsub.listener import DatabaseListeners
from ..relations.key_sets import KeySets
from ..transport.connection import Connection
from ..utils import small_set
from ..utils.pending_calls import PendingCalls
from ..utils.small_set import SmallSet
from ..wire.codes import CloseCode, ErrorCode
from . import catchup, endings
from .derived_events import DerivedEvents
from .filter_costs import NewFilter, exceeds_limit
from .held_results import held_bytes, take_over
from .query import AuthorizedQuery
from .related_feed import RelatedFeed, RelatedFeeds
from .rights import SubscriptionRights
from .subscription import CatchUpPlan, Subscription
from .tailer import LogTailer
from .topic import CollectionTopic

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

# seconds that the end of the last connection waits for calls in threads that read the log
CLOSE_TIMEOUT = 5.0


class TopicManager:
    """Topics by stream, reference counted. Each hub has one."""

    def __init__(self, groups: GroupMemberships, announce: Callable[[Event], None]) -> None:
        # groups of the channel layer that this process is in
        self._groups = groups
        # publishes an event to the other processes
        self._announce = announce
        # collections that are followed, by the names of their streams
        self.topics: dict[str, CollectionTopic] = {}
        # number of subscriptions, including those that are being opened, by name of the collection
        self._reference_counts: Counter[str] = Counter()
        # readers of the log, by alias of the database
        self._readers: dict[str, LogReader] = {}
        # what subscriptions may see
        self._rights = SubscriptionRights(
            self.topics, run=self._run_in_log_thread, end=self._end_with_too_many_keys
        )
        # events of documents that show changed rows of other tables
        self._derived = DerivedEvents(
            run=self._run_in_log_thread,
            is_leader=lambda using: self.related.is_leader(using),
            notify=self.notify,
            announce=announce,
        )
        # hidden streams of the tables that permissions and documents depend on
        self.related = RelatedFeeds(
            groups,
            self.reader,
            announce=announce,
            on_changes=self._derived.after(self._rights.handle_changes),
            on_lost=self._derived.after_loss(self._rights.handle_lost),
        )
        # receive announcements of new events from PostgreSQL
        self._listeners = DatabaseListeners(self._receive_notification, self._look_later)
        # calls in threads that read the log
        self._calls = PendingCalls()
        # tasks of `_look_later` that have not ended
        self._looks: set[asyncio.Task[None]] = set()
        # subscriptions by connection and name
        self._subscriptions: dict[Connection, dict[str, Subscription]] = {}
        # connections by the account of their owner
        self._accounts: dict[Hashable, SmallSet[Connection]] = {}
        # costs of the filters of subscriptions that are being opened
        self._pending_costs: dict[Connection, float] = {}

    # subscriptions

    def add_connection(self, connection: Connection) -> Mapping[str, Subscription]:
        """Return a mapping of a connection's subscriptions by name, which is kept up to date."""
        small_set.add_to(self._accounts, connection.owner.account, connection)
        return self._subscriptions.setdefault(connection, {})

    @property
    def subscription_count(self) -> int:
        """Number of subscriptions of all connections, including those that are not live yet."""
        return sum(map(len, self._subscriptions.values()))

    def subscriptions(self, connection: Connection) -> list[Subscription]:
        """Return a list of a connection's subscriptions."""
        return list(self._subscriptions.get(connection, {}).values())

    def reserve_filter_cost(self, connection: Connection, new: NewFilter) -> bool:
        """Return whether a new filter is within the limit, and count it until `attach`."""
        same = small_set.items(self._accounts.get(connection.owner.account))
        if exceeds_limit(
            conf.limits, connection, new, same, self._subscriptions, self._pending_costs
        ):
            return False
        self._pending_costs[connection] = new.query.cost
        return True

    async def open(self, name: str) -> StreamRange | None:
        """Follow a stream, and catch up with everything that was committed before the call.

        Returns the positions from which a client can resume, or None for a collection without a
        log. Raises the exception of the database if the log cannot be read. The caller must call
        `attach` or `release` in the iteration of the event loop in which this method returns.
        """
        collection = registry.get(name)
        self._reference_counts[name] += 1
        try:
            topic = self.topics.get(name)
            if topic is None:
                on_lost = partial(self._close_subscribers, name)
                topic = CollectionTopic(collection, on_lost, self.end_with_error, self._may_hold)
                self.topics[name] = topic
            timeout = JOIN_TIMEOUT_DURABLE if collection.durable else JOIN_TIMEOUT
            await self._groups.acquire(collection_group(name), timeout)
            related = await self.follow_dependencies(collection)
            topic.related = related
            if not collection.durable:
                if related is not None:
                    await related.wait_caught_up()
                return None
            tailer = topic.tailer
            if tailer is None:
                tailer = topic.start_tailer(self.reader(collection.database), self._announce)
            if related is not None:  # its documents may show related rows
                await self._derived.catch_up(collection.database)
            await tailer.wait_caught_up()
        except BaseException:
            self.release(name)
            raise
        streams = [name] if related is None else [name, related.stream]
        self._listen(collection.database, streams)
        return tailer.range

    async def follow_dependencies(self, collection: Collection) -> RelatedFeed | None:
        """Follow the tables that a collection's permission depends on, before it is evaluated.

        Returns None if there are none.
        """
        if not collection.dependencies:
            return None
        return await self.related.open(collection.database)

    def release(self, name: str) -> None:
        """Undo one `open`. A collection without subscriptions is no longer followed."""
        self._reference_counts[name] -= 1
        self._groups.release(collection_group(name))
        if self._reference_counts[name] <= 0:
            del self._reference_counts[name]
            topic = self.topics.pop(name, None)
            if topic is not None:
                if topic.tailer is not None:
                    self._listeners.unfollow(topic.tailer.using, name)
                topic.stop()

    def attach(
        self, subscription: Subscription, plan: CatchUpPlan | None, *, start: bool = True
    ) -> None:
        """Add a subscription to an opened collection; replace one with the same name.

        It is live immediately, or after ``plan`` has been carried out. With ``start=False`` it is
        suspended until `resume`, because its permissions must be evaluated again.
        """
        self._pending_costs.pop(subscription.connection, None)
        by_name = self._subscriptions.setdefault(subscription.connection, {})
        replaced = by_name.get(subscription.name)
        by_name[subscription.name] = subscription
        subscription.is_attached = True
        if replaced is not None:
            take_over(self.topics[subscription.stream], subscription, replaced)
        self._rights.start(subscription, plan, suspended=not start)
        if replaced is not None:
            self._forget(replaced)

    def detach(self, subscription: Subscription) -> None:
        """Remove a subscription, and deliver nothing more to it."""
        by_name = self._subscriptions.get(subscription.connection, {})
        if by_name.get(subscription.name) is subscription:
            del by_name[subscription.name]
        self._forget(subscription)

    def end_with_error(
        self,
        subscription: Subscription,
        code: ErrorCode = ErrorCode.INTERNAL_ERROR,
        message: str = endings.ENDED,
    ) -> None:
        """Remove a subscription that cannot continue, and report this to its client."""
        if not subscription.is_attached:
            return
        self.detach(subscription)
        endings.report(subscription, code, message)

    def _end_with_too_many_keys(self, subscription: Subscription) -> None:
        """End a subscription one of whose key sets has more keys than allowed."""
        endings.report_too_many_keys(subscription)
        self.end_with_error(subscription, ErrorCode.LIMIT_EXCEEDED, endings.TOO_MANY_KEYS)

    def _may_hold(self, subscription: Subscription) -> bool:
        """Return whether the windows of a client are within the limit, with that of this one."""
        same = small_set.items(self._accounts.get(subscription.connection.owner.account))
        subscriptions = chain.from_iterable(map(self.subscriptions, same))
        limit: int = conf.limits.window_bytes
        return held_bytes(subscriptions, self.topics) <= limit

    def _forget(self, subscription: Subscription) -> None:
        subscription.is_attached = False
        self._rights.discard(subscription)
        catchup.discard(subscription)
        topic = self.topics[subscription.stream]
        topic.table.discard(subscription)
        topic.live_queries.discard(subscription)
        self.release(subscription.stream)

    def remove_connection(self, connection: Connection) -> None:
        """Remove all subscriptions of a connection."""
        if connection in self._subscriptions:
            small_set.remove_from(self._accounts, connection.owner.account, connection)
        self._pending_costs.pop(connection, None)
        for subscription in list(self._subscriptions.pop(connection, {}).values()):
            self._forget(subscription)

    @property
    def key_sets(self) -> KeySets:
        """The key sets of permissions."""
        return self._rights.key_sets

    def suspend(self, connection: Connection) -> None:
        """Stop delivering to a connection immediately, until its subscriptions are resumed."""
        for subscription in self.subscriptions(connection):
            self._rights.suspend(subscription)

    def resume(self, subscription: Subscription, query: AuthorizedQuery, *, same: bool) -> None:
        """Continue a suspended subscription with a new query, see `SubscriptionRights.resume`."""
        self._rights.resume(subscription, query, same=same)

    def _close_subscribers(self, name: str) -> None:
        """Close the subscribers of a collection whose next events are no longer in the log."""
        self.topics[name].live_queries.reset()
        for connection, by_name in list(self._subscriptions.items()):
            if any(subscription.stream == name for subscription in by_name.values()):
                connection.close(CloseCode.POSITION_LOST)

    # events

    def receive(self, change: Change) -> None:
        """Handle a change that arrived through the channel layer."""
        topic = self.topics.get(change.collection)
        if topic is not None:
            topic.receive(change)
        elif (related := self.related.tailer(change.collection)) is not None:
            related.receive(change)

    def receive_announcement(self, announcement: LogAppended) -> None:
        """Handle an announcement of another process that the log of a collection has new events."""
        tailer = self._tailer(announcement.collection)
        if tailer is not None:
            tailer.receive_announcement(announcement)

    def _receive_notification(self, name: str) -> None:
        """Handle a notification of PostgreSQL that the log of a collection has new events.

        If the channel layer does not reach the process that numbers them, all processes do so.
        """
        if is_in_memory(channel_layer()):
            self.notify(name)
        else:
            self.receive_announcement(LogAppended(name))

    def notify(self, name: str) -> None:
        """Read the log of a collection, because it has new events."""
        tailer = self._tailer(name)
        if tailer is not None:
            tailer.notify()

    def _tailer(self, name: str) -> LogTailer | None:
        """Return what follows the log of a collection, or a hidden stream."""
        topic = self.topics.get(name)
        return self.related.tailer(name) if topic is None else topic.tailer

    def expire_snapshots(self) -> None:
        """Read snapshots again, because the project asks clients to load their data again."""
        for topic in self.topics.values():
            topic.shared_snapshots.expire()

    def get_listener(self, name: str) -> Callable[[], None] | None:
        """Return the function to call when the log of a collection has new events, or None.

        The broker calls this method, from any thread.
        """
        return partial(self.notify, name) if self._may_number(name) else None

    # reading the log

    def positions(self) -> dict[str, dict[str, Position]]:
        """Return the positions of all tailers, by alias of the database and collection."""
        positions: dict[str, dict[str, Position]] = {}
        tailers = [topic.tailer for topic in self.topics.values()]
        for tailer in (*tailers, *(feed.tailer for feed in self.related)):
            if tailer is not None:
                positions.setdefault(tailer.using, {})[tailer.collection] = tailer.position
        return positions

    async def find_new(self, using: str, positions: Mapping[str, Position]) -> None:
        """Read the logs that have events after these positions, in one database."""
        try:
            names = await self.reader(using).find_behind(positions)
        except Exception as error:
            logger.warning("The log cannot be read: %r", error)
            return
        for name in names:
            self.notify(name)
        self._listen(using, positions)

    def _listen(self, using: str, names: Iterable[str]) -> None:
        """Receive notifications of the streams whose events this process may have to number."""
        for name in names:
            if self._may_number(name):
                self._listeners.follow(using, name)
            else:
                self._listeners.unfollow(using, name)

    def _may_number(self, name: str) -> bool:
        """Return whether this process may have to number the events of a stream.

        If the channel layer does not reach the process that numbers them, all processes do so.
        """
        tailer = self._tailer(name)
        return tailer is not None and (tailer.may_lead or is_in_memory(channel_layer()))

    def _look_later(self, using: str, names: list[str]) -> None:
        """Look for new events of streams, of which announcements may have been missed."""
        positions = self.positions().get(using, {})
        wanted = {name: positions[name] for name in names if name in positions}
        if wanted:
            task = asyncio.get_running_loop().create_task(self.find_new(using, wanted))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)

    def reader(self, using: str) -> LogReader:
        """Return the reader of the log in the database ``using``."""
        reader = self._readers.get(using)
        if reader is None:
            reader = self._readers[using] = create_reader(using)
        return reader

    async def _run_in_log_thread(
        self, using: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._calls.run(self.reader(using).run(function, *args, **kwargs))

    @property
    def has_readers(self) -> bool:
        """Whether there are readers that `close` must close."""
        return bool(self._readers)

    def close(self) -> None:
        """Close the readers, and the connections that receive announcements."""
        self.related.stop()
        self._rights.stop()
        self._derived.stop()
        self._listeners.stop()
        for task in self._looks:
            task.cancel()
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    async def wait_closed(self) -> None:
        """Wait until connections are closed, and calls in threads that read the log have ended."""
        await self._listeners.wait_stopped()
        await self._calls.wait(CLOSE_TIMEOUT)
