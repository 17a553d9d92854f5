"""An iterator over the events of a collection: ``async for event in db.watch("posts")``."""

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
from .validation import check_names

# options that `Watch.update` replaces
OPTIONS = frozenset(
    {
        "filters",
        "fields",
        "document",
        "events",
        "changed",
        "transitions",
        "snapshot",
    }
)


class EventBuffer:
    """Keeps the events of a subscription until the program reads them.

    When it is full it pauses the subscription, and when all events are read it continues it.

    The subscription has a reference to its buffer. The buffer has none to the watch, so that a
    watch which the program no longer uses is garbage collected.
    """

    def __init__(
        self, collection: str, limit: int, on_failure: Callable[[RealtimeError], None]
    ) -> None:
        # name of the collection
        self._collection = collection
        # called with errors in the server's code, after which the subscription is requested again
        self._on_failure = on_failure
        # number of events with which the buffer is full
        self._limit = limit
        # unread events
        self._events: Queue[Event] = Queue(self._unpause)
        # done when the subscription, or new options, were accepted
        self._ready = Ready()
        # the subscription that is paused and continued; set by `control`
        self._subscription: Subscription | None = None

    def __len__(self) -> int:
        return len(self._events)

    def control(self, subscription: Subscription) -> None:
        """Set the subscription that is paused when the buffer is full."""
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

    def end(self, reason: RealtimeError, *, final: bool = False) -> None:
        """End the iteration after the unread events; with ``final``, it raises the reason.

        `wait_ready` and `wait_updated` raise the reason in any case.
        """
        self._ready.fail(reason)
        self._events.end(reason if final else None)

    # called by the subscription

    def on_event(self, frame: Frame) -> None:
        """Append an event, and pause the subscription if the buffer is full."""
        subscription = self._subscription
        scope = None if subscription is None else subscription.scope
        self._events.put(Event.from_frame(frame, scope))
        # without a cursor there is no position from which to continue after a pause
        if len(self._events) >= self._limit and subscription and subscription.cursor:
            subscription.pause()

    def on_events_end(self) -> None:
        """Do nothing, since each event is read on its own."""

    def on_snapshot(self, documents: list[Frame], truncated: bool) -> None:
        """Append a ``snapshot`` event."""
        event = Event(
            "snapshot",
            self._collection,
            documents=tuple(map(Document.from_frame, documents)),
            truncated=truncated,
        )
        self._events.put(event)

    def on_resync(self, reason: str) -> None:
        """Append a ``resync`` event."""
        self._events.put(Event("resync", self._collection, reason=reason))

    def on_user_changed(self) -> None:
        """Drop the unread events, which another user may not see, and append a ``resync``."""
        if self._ready.is_settled:
            self._ready = Ready()
        self._events.clear()
        self._events.put(Event("resync", self._collection, reason="user_changed"))

    def on_result(self, parts: list[Frame]) -> None:
        """Do nothing, since a watch requests no window and no aggregates."""

    def on_ready(self) -> None:
        """Let `wait_ready` and `wait_updated` return."""
        self._ready.done()

    def on_error(self, error: RealtimeError, *, final: bool) -> None:
        """Let `wait_ready` and `wait_updated` raise the error; if it is final, also `get`."""
        self._ready.fail(error)
        if final:
            self._events.end(error)
        else:
            self._ready = Ready()

    def on_failure(self, error: RealtimeError) -> None:
        """Let `wait_ready` raise the error. Events continue after a success."""
        self._ready.fail(error)
        self._ready = Ready()
        self._on_failure(error)

    def _unpause(self) -> None:
        if self._subscription is not None and self._subscription.paused:
            self._subscription.unpause()


class Watch:
    """An asynchronous iterator over the events of a subscription, as `Event` objects.

    Each event comes once and in order, even if connections are lost. The subscription begins when
    the watch is created, and ends with `stop`, at the end of ``async with``, or when the watch is
    garbage collected.

    If the program reads more slowly than events arrive, up to ``buffer`` events are kept in memory.
    The others are requested from the server when these have been read.
    """

    def __init__(
        self,
        subscribe: Subscribe,
        collection: str,
        options: Mapping[str, Any],
        buffer: int,
        on_collected: Callable[[Subscription], None],
        on_failure: Callable[[RealtimeError], None],
    ) -> None:
        self._buffer = EventBuffer(collection, buffer, on_failure)
        self._subscription = subscribe(collection, options, self._buffer)
        self._buffer.control(self._subscription)
        # stops the subscription when the watch is garbage collected
        self._finalizer = weakref.finalize(self, on_collected, self._subscription)
        self._finalizer.atexit = False

    @property
    def cursor(self) -> str | None:
        """The position up to which events have arrived; None before it is known.

        A later watch can continue there, with ``since=cursor`` and ``scope=scope``. To continue
        after the last event that the program has *handled*, keep that event's ``cursor`` and
        ``scope`` instead.
        """
        return self._subscription.cursor

    @property
    def scope(self) -> str | None:
        """The server's hash of what this watch may see, with which its cursor is valid.

        None before `ready`.
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

        Returns when the server has accepted the new options. None stands for the default. If events
        could not be received in the meantime, because too many were unread, there is a ``resync``.

        Raises ``TypeError`` or ``ValueError`` for other names and for values that are not JSON. If
        the server refuses, raises `RealtimeError`, and the watch continues with the old options.
        """
        check_names(options, OPTIONS)
        self._subscription.update(options)
        await self._buffer.wait_updated()

    def stop(self) -> None:
        """End the subscription. Events that have arrived can still be read."""
        self._subscription.stop()
        self._finalizer.detach()
        self._buffer.end(RealtimeError("closed", "The watch was stopped.", source="connection"))

    def end(self, reason: RealtimeError, *, final: bool) -> None:
        """End the iteration because the client is closed.

        With ``final`` the server does not let it reconnect, and the iteration raises the reason.
        """
        self._buffer.end(reason, final=final)

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
        await asyncio.sleep(0)  # let the task that sends frames send the request
