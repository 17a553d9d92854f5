"""The client without asyncio, for scripts, management commands, tasks and threads.

::

    from django_cocobase_realtime.client import sync as realtime

    with realtime.Realtime("wss://example.com/realtime", token="crk_…") as db:
        for event in db.watch("posts", status="published"):
            print(event.event, event.id, event.data)

Each client has a background thread with an event loop, in which the asynchronous client runs. The
client and all that it returns can be used in any thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, Self, TypeVar

from .background_loop import Loop, run_function
from .client import Realtime as AsyncRealtime
from .count import Count as AsyncCount
from .count import Group, Groups
from .errors import RealtimeError, closed_error
from .items import Items
from .live import Documents
from .live import Live as AsyncLive
from .messages import Document, Event, Message, Presence
from .room import Room as AsyncRoom
from .store import Store as AsyncStore
from .watch import Watch as AsyncWatch

T = TypeVar("T")


class Watch(Items[Event]):
    """An iterator over the events of a subscription. See `client.Watch`."""

    def __init__(self, loop: Loop, watch: AsyncWatch) -> None:
        super().__init__(loop, watch)
        self._watch = watch

    @property
    def cursor(self) -> str | None:
        """The position up to which events have arrived; None before it is known."""
        return self._watch.cursor

    @property
    def scope(self) -> str | None:
        """The server's hash of what this watch may see, with which its cursor is valid."""
        return self._watch.scope

    def ready(self, timeout: float | None = None) -> Self:
        """Wait until the server has accepted the subscription, and return the watch."""
        self._loop.call(self._watch.ready(), timeout)
        return self

    def update(self, timeout: float | None = None, /, **options: Any) -> None:
        """Replace some options, and wait until the server has accepted them."""
        self._loop.call(self._watch.update(**options), timeout)

    def stop(self) -> None:
        """End the subscription. Events that have arrived can still be read."""
        _call_if_open(self._loop, self._watch.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class Store(Generic[T]):
    """Items that a subscription keeps up to date: the documents of a list, or groups."""

    def __init__(self, loop: Loop, store: AsyncStore[T]) -> None:
        self._loop = loop
        self._store = store

    def ready(self, timeout: float | None = None) -> Self:
        """Wait until the result has arrived, and return this object."""
        self._loop.call(self._store.ready(), timeout)
        return self

    def changes(self) -> Items[tuple[T, ...]]:
        """Return an iterator that yields the items after each change from now on."""
        return Items(self._loop, self._loop.call(run_function(self._store.changes)))

    def subscribe(self, reader: Callable[[tuple[T, ...]], Any]) -> Callable[[], None]:
        """Call ``reader`` with the items in the client's thread, now and after each change.

        Returns a function that ends these calls.
        """
        stop = self._loop.call(run_function(lambda: self._store.subscribe(reader)))
        return lambda: _call_if_open(self._loop, stop)

    def stop(self) -> None:
        """End the subscription. The items stay as they are."""
        _call_if_open(self._loop, self._store.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class Live(Store[Document]):
    """A list of the documents that match a filter. See `client.Live`."""

    def __init__(self, loop: Loop, live: AsyncLive) -> None:
        super().__init__(loop, live)
        self._live = live

    @property
    def documents(self) -> Documents:
        """The current documents. It is the same tuple object until something changes."""
        return self._live.documents

    @property
    def has_more(self) -> bool:
        """Whether further documents match, which are behind the last one of the list."""
        return self._live.has_more

    @property
    def next(self) -> str | None:
        """The cursor of the next page, for ``after`` of another list; None if there is none."""
        return self._live.next

    def more(self, n: int | None = None, timeout: float | None = None) -> None:
        """Extend the list by ``n`` documents, by default by its first limit, and wait for them."""
        self._loop.call(self._live.more(n), timeout)

    def update(self, timeout: float | None = None, /, **options: Any) -> None:
        """Replace some options, such as ``order``, and wait until the documents have arrived."""
        self._loop.call(self._live.update(**options), timeout)


class Count(Store[Group]):
    """The number of documents that match a filter, and aggregates. See `client.Count`."""

    def __init__(self, loop: Loop, count: AsyncCount) -> None:
        super().__init__(loop, count)
        self._count = count

    @property
    def value(self) -> int | None:
        """The number of matching documents, in all groups; None before it is known."""
        return self._count.value

    @property
    def groups(self) -> Groups:
        """The groups. It is the same tuple object until something changes."""
        return self._count.groups

    def update(self, timeout: float | None = None, /, **options: Any) -> None:
        """Replace some options, such as ``filters``, and wait until the groups have arrived."""
        self._loop.call(self._count.update(**options), timeout)


class Room:
    """A room that this client has joined. See `client.Room`."""

    def __init__(self, loop: Loop, room: AsyncRoom) -> None:
        self._loop = loop
        self._room = room

    @property
    def name(self) -> str:
        """The name of the room."""
        return self._room.name

    @property
    def title(self) -> str:
        """The room's title, or its name if it has none."""
        return self._room.title

    @property
    def members(self) -> tuple[Mapping[str, Any], ...]:
        """The members: mappings with ``id``, ``name`` and, if they have one, ``state``."""
        return self._room.members

    @property
    def participants(self) -> int:
        """The number of members."""
        return self._room.participants

    @property
    def state(self) -> Mapping[str, Any] | None:
        """The own state of this client, which the other members see."""
        return self._room.state

    @property
    def uses(self) -> int:
        """How often the room was entered and not left."""
        return self._room.uses

    def ready(self, timeout: float | None = None) -> Self:
        """Wait until the room is joined, and return it."""
        self._loop.call(self._room.ready(), timeout)
        return self

    def broadcast(
        self,
        message: Any,
        *,
        echo: bool = True,
        ephemeral: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Send a message, and wait until the server has confirmed it.

        After ``TimeoutError``, a message that was not sent is not sent later.
        """
        self._loop.call(self._room.broadcast(message, echo=echo, ephemeral=ephemeral), timeout)

    def set_state(self, state: Mapping[str, Any], *, timeout: float | None = None) -> None:
        """Replace this client's state, and wait until the server has accepted it."""
        self._loop.call(self._room.set_state(state), timeout)

    def messages(self) -> Items[Message]:
        """Return an iterator over the messages. The first one also yields those before it."""
        return Items(self._loop, self._loop.call(run_function(self._room.messages)))

    def __iter__(self) -> Items[Message]:
        return self.messages()

    def presence(self) -> Items[Presence]:
        """Return an iterator over the changes of the members from now on."""
        return Items(self._loop, self._loop.call(run_function(self._room.presence)))

    def leave(self) -> None:
        """Leave the room and end its iterators, unless it is used elsewhere."""
        _call_if_open(self._loop, self._room.leave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()


class Realtime:
    """A connection to one server, for programs without asyncio. See `client.Realtime`.

    ::

        with Realtime("wss://example.com/realtime", token="crk_…") as db: ...

    It has the parameters of `client.Realtime`. The functions among them are called in the client's
    thread, and must not call methods that wait.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._client = AsyncRealtime(url, **options)
        # created at the first use, so that a client can be created before a fork
        self._loop: Loop | None = None
        # protects `_loop`
        self._lock = threading.Lock()
        # whether `close` was called
        self._is_closed = False

    def __enter__(self) -> Self:
        try:
            self.start()
            self.connected()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> None:
        """Connect, and stay connected. ``with`` and the first use call this method."""
        self._call(self._client.start)

    def connected(self, timeout: float | None = None) -> None:
        """Wait until the server has authenticated this client."""
        self._get_loop().call(self._client.connected(), timeout)

    def close(self) -> None:
        """Close the connection permanently.

        Iterations in all threads end, and calls that wait raise `RealtimeError` (``closed``).
        """
        with self._lock:
            self._is_closed = True
            loop = self._loop
        if loop is not None:
            loop.stop()

    @property
    def status(self) -> str:
        """One of "idle", "connecting", "live", "waiting" and "closed"."""
        return "closed" if self._is_closed else self._client.status

    @property
    def user(self) -> Mapping[str, str] | None:
        """The ``id`` and ``name`` of the authenticated user, or None."""
        return self._client.user

    @property
    def latency(self) -> float | None:
        """Seconds that the server took to answer the last ping; None before the first one."""
        return self._client.latency

    def watch(self, collection: str, /, **options: Any) -> Watch:
        """Subscribe to the events of a collection, and return an iterator over them."""
        watch = self._call(lambda: self._client.watch(collection, **options))
        return Watch(self._get_loop(), watch)

    def live(self, collection: str, /, **options: Any) -> Live:
        """Subscribe to a collection, and return a list of the matching documents."""
        live = self._call(lambda: self._client.live(collection, **options))
        return Live(self._get_loop(), live)

    def count(self, collection: str, /, **options: Any) -> Count:
        """Subscribe to the number of matching documents, and return an object that shows it."""
        count = self._call(lambda: self._client.count(collection, **options))
        return Count(self._get_loop(), count)

    def room(self, name: str, /, **options: Any) -> Room:
        """Join a room and return it."""
        room = self._call(lambda: self._client.room(name, **options))
        return Room(self._get_loop(), room)

    def messages(self) -> Items[Message]:
        """Return an iterator over the server's messages to this user, or to all."""
        return Items(self._get_loop(), self._call(self._client.messages))

    def _get_loop(self) -> Loop:
        with self._lock:
            if self._is_closed:
                raise closed_error()
            if self._loop is None:
                self._loop = Loop(self._client)
            return self._loop

    def _call(self, function: Callable[[], T]) -> T:
        return self._get_loop().call(run_function(function))


def _call_if_open(loop: Loop, function: Callable[[], None]) -> None:
    """Call a function in the loop that ends something; a closed client has ended it already."""
    with contextlib.suppress(RealtimeError):
        loop.call(run_function(function))
