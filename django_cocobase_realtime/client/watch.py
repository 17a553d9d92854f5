"""The iterator over a collection's events: ``async for event in db.watch("posts")``."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any

from .errors import RealtimeError
from .interfaces import Frame
from .messages import Document, Event
from .streams import Queue, Ready
from .subscription import Subscribe, Subscription


class EventBuffer:
    """Collects the events of a subscription until the program reads them.

    It pauses the subscription when ``limit`` events wait, and continues it when all are read. It
    has no reference to the watch: an unused watch must be garbage collected although the
    subscription, which references the buffer, is still there.
    """

    def __init__(self, collection: str, limit: int) -> None:
        self._collection = collection
        self._limit = limit
        self._events: Queue[Event] = Queue(self._unpause)
        self._ready = Ready()
        # the subscription whose flow is controlled; set when it has been created
        self._subscription: Subscription | None = None

    def __len__(self) -> int:
        return len(self._events)

    def control(self, subscription: Subscription) -> None:
        """Pause and continue this subscription from now on."""
        self._subscription = subscription

    async def get(self) -> Event:
        """Wait for the next event and return it.

        Raises ``StopAsyncIteration`` at the end, or the error that ended the subscription.
        """
        return await self._events.get()

    async def wait_ready(self) -> None:
        """Wait until the subscription is accepted. Raises `RealtimeError` if it is refused."""
        await self._ready.wait()

    async def wait_updated(self) -> None:
        """Wait until new options are accepted. Raises `RealtimeError` if they are refused."""
        self._ready = Ready(self._ready)
        await self._ready.wait()

    def end(self, error: RealtimeError | None = None) -> None:
        """End the iteration after the events that wait; with ``error``, raise it then."""
        if error is not None:
            self._ready.fail(error)
        self._events.end(error)

    # called by the subscription

    def on_event(self, frame: Frame) -> None:
        """Append an event, and pause the subscription if the buffer is full."""
        self._events.put(Event.from_frame(frame))
        subscription = self._subscription
        # without a cursor there is no position from which to continue after a pause
        if len(self._events) >= self._limit and subscription and subscription.cursor:
            subscription.pause()

    def on_snapshot(self, documents: list[Frame], truncated: bool) -> None:
        """Append a ``snapshot`` event."""
        found = tuple(map(Document.from_frame, documents))
        event = Event("snapshot", self._collection, documents=found, truncated=truncated)
        self._events.put(event)

    def on_resync(self, reason: str) -> None:
        """Append a ``resync`` event."""
        self._events.put(Event("resync", self._collection, reason=reason))

    def on_ready(self) -> None:
        """Return from `wait_ready` and `wait_updated`."""
        self._ready.done()

    def on_error(self, error: RealtimeError, *, final: bool) -> None:
        """Raise the error from `wait_ready` and `wait_updated`; if final, also from `get`."""
        self._ready.fail(error)
        if final:
            self._events.end(error)

    def _unpause(self) -> None:
        if self._subscription is not None and self._subscription.paused:
            self._subscription.unpause()


class Watch:
    """The events of one subscription, in order and each once, over any number of connections.

    It is an asynchronous iterator of `Event`. The subscription begins when the watch is created,
    and ends with `stop`, at the end of ``async with``, or when the watch is garbage collected.

    If the program is slower than the stream, ``buffer`` events are kept in memory; the rest is
    requested from the server after they have been read.
    """

    def __init__(
        self,
        subscribe: Subscribe,
        collection: str,
        options: Mapping[str, Any],
        buffer: int,
        on_collected: Callable[[Subscription], None],
    ) -> None:
        self._buffer = EventBuffer(collection, buffer)
        self._subscription = subscribe(collection, options, self._buffer)
        self._buffer.control(self._subscription)
        # stops the subscription when the watch is garbage collected
        self._finalizer = weakref.finalize(self, on_collected, self._subscription)
        self._finalizer.atexit = False

    @property
    def cursor(self) -> str | None:
        """The position up to which events have arrived; None before it is known.

        A later watch can continue there, with ``since=cursor`` and ``scope=scope``. To continue
        after the last event that the program has *handled*, keep that event's ``cursor`` instead.
        """
        return self._subscription.cursor

    @property
    def scope(self) -> str | None:
        """The server's hash of what this watch may see; None before `ready`.

        A cursor is valid only together with it.
        """
        return self._subscription.scope

    async def ready(self) -> Watch:
        """Wait until the server has accepted the subscription, and return the watch.

        Raises `RealtimeError` if it is refused.
        """
        await self._buffer.wait_ready()
        return self

    async def update(self, **options: Any) -> None:
        """Replace some options of `Realtime.watch` in one step, such as ``filters``.

        Returns when the new options are in force. Raises ``TypeError`` or ``ValueError`` for
        values that are not JSON, and `RealtimeError` if the server refuses the options; the old
        ones stay in force then.
        """
        self._subscription.update(options)
        await self._buffer.wait_updated()

    def stop(self) -> None:
        """End the subscription. Events that have arrived can still be read."""
        self._finalizer.detach()
        self._subscription.stop()
        self._buffer.end()

    def end(self, error: RealtimeError | None) -> None:
        """End the iteration because the client is closed, or was terminated with ``error``."""
        self._buffer.end(error)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await self._buffer.get()

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        await asyncio.sleep(0)  # let the writer send the request before the program continues
