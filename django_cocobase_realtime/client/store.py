"""Items that a subscription keeps up to date, and the program's readers of them."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, Self, TypeVar

from .errors import RealtimeError, call_safely
from .frozen import is_same
from .interfaces import Frame
from .streams import Broadcaster, Ready
from .subscription import Subscription

T = TypeVar("T")


class Store(Generic[T]):
    """Items that a subscription keeps up to date: the documents of a list, or groups.

    A subclass requests the subscription, for which it is the listener, and changes `_items`. The
    program sees them after each frame from the server. An item that is replaced by an equal one
    stays the same object.
    """

    # the subscription, which the subclass sets
    _subscription: Subscription

    def __init__(
        self,
        *,
        on_error: Callable[[RealtimeError], None],
        on_mistake: Callable[[RealtimeError], None],
    ) -> None:
        # called with refusals of the subscription
        self._on_error = on_error
        # called with errors of readers
        self._on_mistake = on_mistake
        # the items by key, in order; `_edit` returns a copy of those that the program sees
        self._items: dict[str, T] = {}
        # the items that the program sees, in both forms
        self._shown = self._items
        self._value: tuple[T, ...] = ()
        # what the program was last shown besides the items
        self._shown_detail = self._detail
        # done when the subscription, or new options, were accepted and the result has arrived
        self._ready = Ready()
        # the iterators of `changes`
        self._changes: Broadcaster[tuple[T, ...]] = Broadcaster()
        # functions of the program that `subscribe` was called with
        self._readers: dict[object, Callable[[tuple[T, ...]], Any]] = {}

    async def ready(self) -> Self:
        """Wait until the result has arrived, and return this object.

        Raises `RealtimeError` if the server refuses the subscription.
        """
        await self._ready.wait()
        return self

    def changes(self) -> AsyncIterator[tuple[T, ...]]:
        """Return an iterator that yields the items after each change from now on.

        It ends with `stop` or when the client is closed, and raises `RealtimeError` if the server
        refuses the subscription.
        """
        return self._changes.iterate()

    def subscribe(self, reader: Callable[[tuple[T, ...]], Any]) -> Callable[[], None]:
        """Call ``reader`` with the items now and after each change.

        Returns a function that ends these calls. ``reader`` may be asynchronous. Its exceptions are
        reported to the client's ``on_error``.
        """
        key = object()
        self._readers[key] = reader
        self._read(key)

        def stop() -> None:
            self._readers.pop(key, None)

        return stop

    def stop(self) -> None:
        """End the subscription. The items stay as they are."""
        self._subscription.stop()
        self._ready.fail(RealtimeError("closed", "It was stopped.", source="connection"))
        self._changes.end()

    def end(self, reason: RealtimeError, *, final: bool) -> None:
        """End the iterators because the client is closed.

        With ``final`` the server does not let it reconnect: remove all items.
        """
        self._ready.fail(reason)
        if final:
            self._remove_all()
        self._changes.end(reason if final else None)

    # called by the subscription

    def on_event(self, frame: Frame) -> None:
        """Do nothing, unless a subclass handles events."""

    def on_snapshot(self, documents: list[Frame], truncated: bool) -> None:
        """Do nothing, unless a subclass handles snapshots."""

    def on_result(self, parts: list[Frame]) -> None:
        """Do nothing, unless a subclass handles windows or aggregates."""

    def on_events_end(self) -> None:
        """Show the result of the frame."""
        self._refresh()

    def on_resync(self, reason: str) -> None:
        """Do nothing, since the whole result follows."""

    def on_user_changed(self) -> None:
        """Remove all items, which another user may not see."""
        if self._ready.is_settled:
            self._ready = Ready()
        self._remove_all()

    def on_ready(self) -> None:
        """Let `ready` and `update` return."""
        self._ready.done()

    def on_error(self, error: RealtimeError, *, final: bool) -> None:
        """Let `ready` and `update` raise the error.

        With ``final`` remove all items, since this client may not see them any more.
        """
        self._ready.fail(error)
        self._on_error(error)
        if final:
            self._remove_all()
            self._changes.end(error)
        else:
            self._ready = Ready()

    def on_failure(self, error: RealtimeError) -> None:
        """Let `ready` raise the error. The items stay, and are updated after a success."""
        self._ready.fail(error)
        self._ready = Ready()
        self._on_error(error)

    # for subclasses

    @property
    def _detail(self) -> object:
        """A value that the program sees besides the items; readers are called if it changes."""
        return None

    def _clear(self) -> None:
        """Remove all items, and forget what else belongs to them."""
        self._items = {}

    def _edit(self) -> dict[str, T]:
        """Return the items, in order to change them."""
        if self._items is self._shown:
            self._items = dict(self._shown)
        return self._items

    async def _update(self, options: dict[str, Any]) -> None:
        """Request other options, and wait until their result has arrived."""
        self._subscription.update(options)
        self._ready = ready = Ready(self._ready)
        await ready.wait()

    # internal

    def _remove_all(self) -> None:
        self._clear()
        self._refresh()

    def _refresh(self) -> None:
        """Show the items to the program; if something has changed, call the readers."""
        detail, shown = self._detail, self._shown
        is_changed = detail != self._shown_detail
        if self._items is shown and not is_changed:
            return
        items = {key: _prefer(shown.get(key), item) for key, item in self._items.items()}
        value = tuple(items.values())
        is_changed = is_changed or len(value) != len(self._value)
        self._items, self._shown, self._shown_detail = items, items, detail
        if is_changed or not all(map(operator.is_, value, self._value)):
            self._value = value
            self._changes.put(value)
            for key in list(self._readers):
                self._read(key)

    def _read(self, key: object) -> None:
        """Call a reader with the items, unless it has been stopped."""
        if reader := self._readers.get(key):
            call_safely(self._on_mistake, reader, self._value)


def _prefer(shown: T | None, item: T) -> T:
    """Return an item that is shown if it is the same, or else the new one."""
    return shown if shown is not None and is_same(shown, item) else item
