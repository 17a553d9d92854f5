"""Feeds of the tables that permissions depend on: the hidden stream of each database.

A process follows the hidden stream of a database from the first request for a collection whose
permissions depend on other tables of that database. The tailers of these collections hold their
events until the changes of the hidden stream that were committed before have been handled here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

from ..declarations.dependency_table import hidden_stream
from ..events import Change, Event
from ..log.cursor import Position
from ..log.log_reader import LogReader
from ..pubsub.groups import JOIN_TIMEOUT_DURABLE, GroupMemberships
from ..pubsub.layer import collection_group
from ..utils.concurrency import set_owner
from ..utils.fair_queue import SERVER
from .tailer import LogTailer

logger = logging.getLogger(__name__)


class RelatedFeed:
    """The hidden stream of one database. Belongs to one event loop.

    ``on_changes`` is awaited with the alias of the database and its changes, in order. Events that
    were committed after them are delivered when it has returned. ``on_lost`` is called with the
    alias if the log no longer contains the next changes, so that anything may have changed. If one
    of them raises, nothing is delivered until ``on_lost`` has returned.
    """

    def __init__(
        self,
        using: str,
        reader: LogReader,
        groups: GroupMemberships,
        *,
        announce: Callable[[Event], None],
        on_changes: Callable[[str, list[Change]], Awaitable[None]],
        on_lost: Callable[[str], None],
    ) -> None:
        # alias of the database
        self.using = using
        # name of the hidden stream
        self.stream = hidden_stream(using)
        # position of the last change that was handled
        self.position = Position("", 0)
        self._groups = groups
        # whether the group of the channel layer was joined, or will be
        self._has_group = False
        self._on_changes = on_changes
        self._on_lost = on_lost
        # changes that the tailer has delivered, before `_on_changes` is called with them
        self._changes: list[Change] = []
        # calls `_on_changes`; None if there are no changes
        self._task: asyncio.Task[None] | None = None
        # whether `stop` was called
        self._is_stopped = False
        # called whenever the position has changed
        self._followers: list[Callable[[], None]] = []
        # set, and replaced, whenever the position has changed
        self._progress = asyncio.Event()
        # follows the stream
        self.tailer = LogTailer(
            self.stream,
            reader,
            using,
            deliver=self._changes.append,
            on_position_lost=self._lose,
            announce=announce,
            is_complete=lambda change: True,
            restore=list,
        )
        self.tailer.follow(self._flush)

    async def start(self) -> None:
        """Wait until the stream is followed."""
        if not self._has_group:
            self._has_group = True
            await self._groups.acquire(collection_group(self.stream), JOIN_TIMEOUT_DURABLE)
        if not self.position.epoch:
            await self.wait_caught_up()

    def follow(self, follower: Callable[[], None]) -> None:
        """Call a function whenever the position has changed."""
        self._followers.append(follower)

    def unfollow(self, follower: Callable[[], None]) -> None:
        """Undo `follow`."""
        self._followers.remove(follower)

    async def wait_caught_up(self) -> None:
        """Wait until all changes that were committed before this call are handled.

        Raises the exception of the database if the log cannot be read.
        """
        await self.tailer.wait_caught_up()
        target = self.tailer.position
        while not self._has_handled(target):
            if self._is_stopped:
                raise ConnectionError("The hidden stream is no longer followed.")
            await self._progress.wait()

    def _has_handled(self, target: Position) -> bool:
        """Return whether a position was handled, or lost and all that followed it handled."""
        position = self.position
        if position.epoch == target.epoch:
            return position.seq >= target.seq
        return position.epoch != "" and position.epoch == self.tailer.epoch

    def stop(self) -> None:
        """Stop following the stream."""
        self._is_stopped = True
        self._progress.set()
        self.tailer.stop()
        if self._task is not None:
            self._task.cancel()
        if self._has_group:
            self._groups.release(collection_group(self.stream))

    def _flush(self) -> None:
        """Handle what the tailer has delivered."""
        if self._task is not None:
            return
        if self._changes:
            self._task = asyncio.get_running_loop().create_task(self._handle())
        else:
            self._advance(self.tailer.position)

    async def _handle(self) -> None:
        set_owner(SERVER)
        try:
            while self._changes:
                changes, position = self._changes.copy(), self.tailer.position
                self._changes.clear()
                await self._on_changes(self.using, changes)
                self._advance(position)
        except Exception:
            logger.exception("Changes of related tables in %r failed.", self.using)
            self.tailer.lose_position()
        finally:
            self._task = None

    def _lose(self) -> None:
        self._changes.clear()
        self._on_lost(self.using)
        self._advance(self.tailer.position)

    def _advance(self, position: Position) -> None:
        """Let events be delivered that were committed after the changes up to a position."""
        current = self.tailer.position
        if position.epoch != current.epoch or not position.epoch:
            return  # the position was lost in the meantime
        if self.position.epoch != position.epoch or self.position.seq < position.seq:
            self.position = position
        self._progress.set()
        self._progress = asyncio.Event()
        for follower in self._followers:
            follower()


class RelatedFeeds:
    """The feeds of an event loop. One that was opened is followed until `stop`."""

    def __init__(
        self,
        groups: GroupMemberships,
        get_reader: Callable[[str], LogReader],
        *,
        announce: Callable[[Event], None],
        on_changes: Callable[[str, list[Change]], Awaitable[None]],
        on_lost: Callable[[str], None],
    ) -> None:
        self._groups = groups
        # returns the reader of a database
        self._get_reader = get_reader
        # publishes an event to the other processes
        self._announce = announce
        self._on_changes = on_changes
        self._on_lost = on_lost
        # feeds by the name of their stream
        self._feeds: dict[str, RelatedFeed] = {}

    def __iter__(self) -> Iterator[RelatedFeed]:
        return iter(self._feeds.values())

    def tailer(self, stream: str) -> LogTailer | None:
        """Return the tailer of a hidden stream that is followed."""
        feed = self._feeds.get(stream)
        return None if feed is None else feed.tailer

    def is_leader(self, using: str) -> bool:
        """Return whether this process must number the changes of a database's related tables."""
        tailer = self.tailer(hidden_stream(using))
        return tailer is not None and tailer.is_leader

    async def open(self, using: str) -> RelatedFeed:
        """Follow the hidden stream of a database, and return its feed.

        All changes that are committed after the call are handled. Raises the exception of the
        database if the log cannot be read.
        """
        feed = self._feeds.get(hidden_stream(using))
        if feed is None:
            feed = RelatedFeed(
                using,
                self._get_reader(using),
                self._groups,
                announce=self._announce,
                on_changes=self._on_changes,
                on_lost=self._on_lost,
            )
            self._feeds[feed.stream] = feed
        await feed.start()
        return feed

    def stop(self) -> None:
        """Stop following all hidden streams."""
        for feed in self._feeds.values():
            feed.stop()
        self._feeds.clear()
