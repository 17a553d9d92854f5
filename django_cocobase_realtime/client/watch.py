"""``async for event in db.watch("posts")``."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .errors import RealtimeError, Reply
from .messages import Document, Event
from .streams import Queue, Ready
from .subscription import Subscription

if TYPE_CHECKING:
    from .protocol import Conversation


class _Inbox:
    """What came and was not read yet. It does not hold the watch: that may be forgotten."""

    def __init__(self, collection: str, buffer: int) -> None:
        self.collection = collection
        self.buffer = buffer
        self.queue: Queue[Event] = Queue(self._drained)
        self.ready = Ready()
        self.refused: RealtimeError | None = None
        self.subscription: Subscription | None = None

    def on_event(self, frame: Reply) -> None:
        self.queue.put(Event.from_frame(frame))
        subscription = self.subscription
        # without a log there is no place to go on from
        if len(self.queue) >= self.buffer and subscription and subscription.cursor:
            subscription.pause()

    def on_snapshot(self, documents: list[Reply], truncated: bool) -> None:
        found = tuple(map(Document.from_frame, documents))
        event = Event("snapshot", self.collection, documents=found, truncated=truncated)
        self.queue.put(event)

    def on_resync(self, reason: str) -> None:
        self.queue.put(Event("resync", self.collection, reason=reason))

    def on_ready(self) -> None:
        self.ready.done()

    def on_error(self, error: RealtimeError, *, over: bool) -> None:
        self.refused = error
        self.ready.fail(error)
        if over:
            self.queue.end(error)

    def _drained(self) -> None:
        if self.subscription is not None and self.subscription.paused:
            self.subscription.unpause()


class Watch:
    """Events of one subscription, in the order of the stream, over any number of connections.

    It begins at once, and ends with `stop`, with ``async with``, or when nobody holds it. Where
    the program is slower than the stream, ``buffer`` events are kept and the rest is asked for
    when they are read.
    """

    def __init__(
        self,
        talk: Conversation,
        collection: str,
        options: Mapping[str, Any],
        buffer: int,
        release: Callable[[Subscription], None],
    ) -> None:
        self._inbox = _Inbox(collection, buffer)
        self._subscription = talk.subscribe(collection, options, self._inbox)
        self._inbox.subscription = self._subscription
        self._release = weakref.finalize(self, release, self._subscription)
        self._release.atexit = False

    @property
    def cursor(self) -> str | None:
        """How far the watch has come; with `scope` it may be kept, and given to ``since``.

        For what was *handled*, keep the ``cursor`` of the event instead.
        """
        return self._subscription.cursor

    @property
    def scope(self) -> str | None:
        """What the cursor is good for; None before `ready`."""
        return self._subscription.scope

    async def ready(self) -> Watch:
        """Wait until subscribed. Raises `RealtimeError` where it is refused."""
        await self._inbox.ready.wait()
        return self

    async def update(self, **options: Any) -> None:
        """Replace ``filters``, ``fields``, ``events``, … in one step.

        Raises `RealtimeError` where that is refused, and the old ones stay in force.
        """
        self._subscription.update(options)
        self._inbox.ready = ready = Ready(self._inbox.ready)
        await ready.wait()

    def stop(self) -> None:
        """End it; what came already may still be read."""
        self._release.detach()
        self._subscription.stop()
        self._inbox.queue.end()

    def end(self, error: RealtimeError | None) -> None:
        """The client is done for."""
        if error is not None:
            self._inbox.ready.fail(error)
        self._inbox.queue.end(error)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await self._inbox.queue.get()

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        await asyncio.sleep(0)
