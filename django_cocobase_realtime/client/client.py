"""``Realtime``: what a program holds."""

from __future__ import annotations

import asyncio
import contextlib
import random
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from .connection import Connection, Token, now
from .errors import RealtimeError, call_safely, logger
from .live import Compare, Live
from .messages import Message
from .room import Room
from .subscription import Subscription
from .watch import Watch


class Realtime:
    """A client of one server, for one event loop.

    ``token`` is an API key, a JWT, or a function (plain or asynchronous) that gives one: it is
    asked before each connection, and before a token expires. ``timeout`` is how many seconds the
    server may take to accept a connection or to answer a ping. ``on_status`` is called with
    ``connecting``, ``live``, ``waiting`` (with ``delay`` in seconds) or ``closed`` (with ``code``);
    ``on_error`` with what belongs to no request, by default a log entry. ``random`` gives numbers
    between 0 and 1, for the delays. Further options are those of ``websockets.connect``, such as
    ``ssl`` or ``additional_headers``.

    Raises `RealtimeError` from ``async with`` where the server turns the client away for good.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        timeout: float = 8.0,
        on_status: Callable[[str, Mapping[str, Any]], None] | None = None,
        on_error: Callable[[RealtimeError], None] | None = None,
        random: Callable[[], float] = random.random,
        **options: Any,
    ) -> None:
        self.url = "ws" + url.removeprefix("http") if url.startswith("http") else url
        self.status = "idle"
        self._tell_status = on_status
        self._tell_error = on_error
        self._connection = Connection(self, self.url, token, timeout, random, options)
        self._talk = self._connection.talk
        self._live = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._failed: RealtimeError | None = None
        self._watches: weakref.WeakSet[Watch | Live] = weakref.WeakSet()

    # life

    async def __aenter__(self) -> Realtime:
        self.start()
        try:
            await self.connected()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def start(self) -> None:
        """Connect, and stay connected, in a task of its own; ``async with`` does it. Only once."""
        if self._task is None:
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._connection.run())

    async def connected(self) -> None:
        """Wait until the connection is there and authenticated.

        Raises `RealtimeError` where the server turns the client away for good.
        """
        await self._live.wait()
        if self._failed is not None:
            raise self._failed

    async def close(self) -> None:
        """Close for good: watches and rooms end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.status != "closed":
            self.on_status("closed", {"code": 1000})
            self._end(None)

    # what programs use

    @property
    def user(self) -> Mapping[str, str] | None:
        """``id`` and ``name`` of whom the server takes us for; None for a bare key."""
        return self._talk.user

    @property
    def latency(self) -> float | None:
        """Seconds that the last ping took."""
        return self._talk.latency

    def watch(
        self,
        collection: str,
        /,
        *,
        filters: Mapping[str, Any] | None = None,
        fields: Sequence[str] | None = None,
        events: Sequence[str] | None = None,
        document: str | None = None,
        changed: Sequence[str] | None = None,
        transitions: bool | None = None,
        snapshot: bool | Mapping[str, Any] | None = None,
        since: str | None = None,
        scope: str | None = None,
        buffer: int = 1000,
        **equal: Any,
    ) -> Watch:
        """Events of a collection: ``async for event in db.watch("posts", status="published")``.

        Keywords that are not options are filters, in the protocol's spelling
        (``views__gte=3``). ``since`` and ``scope`` go on from a place that was kept.
        """
        options = {
            "filters": {**(filters or {}), **equal},
            "fields": fields,
            "events": events,
            "document": document,
            "changed": changed,
            "transitions": transitions,
            "snapshot": snapshot,
            "since": since,
            "scope": scope,
        }
        wanted = {key: value for key, value in options.items() if value is not None}
        watch = Watch(self._talk, collection, wanted, buffer, self._release)
        self._watches.add(watch)
        return watch

    def live(
        self,
        collection: str,
        /,
        *,
        filters: Mapping[str, Any] | None = None,
        fields: Sequence[str] | None = None,
        document: str | None = None,
        order: str | None = None,
        limit: int | None = None,
        transitions: bool = True,
        compare: Compare | None = None,
        on_error: Callable[[RealtimeError], None] | None = None,
        **equal: Any,
    ) -> Live:
        """The documents that match, kept up to date, in ``order`` (a field, ``-`` downwards).

        ``compare`` is another order than by the field's value, the same as the server's. Without
        ``transitions``, for collections with ``"track": False``, documents do not leave.
        """
        options = {
            "filters": {**(filters or {}), **equal},
            "fields": fields,
            "document": document,
            "transitions": transitions,
        }
        live = Live(
            self._talk,
            collection,
            {key: value for key, value in options.items() if value is not None},
            order=order,
            limit=limit,
            compare=compare,
            on_error=on_error or self.on_error,
        )
        self._watches.add(live)
        return live

    def room(
        self,
        name: str,
        /,
        *,
        presence: bool = True,
        history: int | None = None,
        state: Mapping[str, Any] | None = None,
        on_resync: Callable[[str], None] | None = None,
    ) -> Room:
        """Enter a room, or get it where this client is in it already.

        Without ``presence`` one is not listed. ``history`` is how many of the last messages are
        wanted, where the room keeps them; ``state`` what the others see of us. ``on_resync`` is
        called with a reason where what was said while we were away is not all kept.
        """
        room = self._talk.rooms.get(name)
        if room is None:
            room = Room(
                self._talk,
                name,
                presence=presence,
                history=history,
                state=state,
                on_error=self.on_error,
                on_resync=on_resync,
                clock=now,
            )
            self._talk.rooms[name] = room
            if self._talk.live:
                room.join()
        return room

    def messages(self) -> AsyncIterator[Message]:
        """What the server says from here on to everyone in the project, or to this user."""
        return self._talk.messages.iterate()

    # what the connection calls

    def on_status(self, status: str, detail: Mapping[str, Any]) -> None:
        """The connection's state changed."""
        self.status = status
        if status == "live":
            self._live.set()
        elif self._failed is None:
            self._live.clear()
        if self._tell_status is not None:
            call_safely(self._tell_status, status, detail)

    def on_error(self, error: RealtimeError) -> None:
        """An error that belongs to no request."""
        if self._tell_error is not None:
            call_safely(self._tell_error, error)
        else:
            logger.error("%s", error)

    def on_over(self, error: RealtimeError) -> None:
        """The server turned us away for good."""
        self._failed = error
        self.on_status("closed", {"code": error.code})
        self._live.set()
        self._end(error)

    # inside

    def _end(self, error: RealtimeError | None) -> None:
        for watch in list(self._watches):
            watch.end(error)
        over = error or RealtimeError("closed", "The client was closed.")
        for room in list(self._talk.rooms.values()):
            room.end(over, quietly=error is None)
        self._talk.messages.end(error)
        self._talk.rooms.clear()
        self._talk.subscriptions.clear()

    def _release(self, subscription: Subscription) -> None:
        """A watch that nobody holds any more."""
        if self._loop is None:
            subscription.stop()
            return
        with contextlib.suppress(RuntimeError):  # the loop is gone, and the connection with it
            self._loop.call_soon_threadsafe(subscription.stop)
