"""The class `Realtime`, with which a program connects to a server."""

from __future__ import annotations

import asyncio
import contextlib
import random
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from .connection import Connection, Token
from .errors import RealtimeError, call_safely, logger
from .live import Compare, Live
from .messages import Message
from .room import Room
from .subscription import Subscription
from .watch import Watch


class Realtime:
    """A connection to one server, which is opened again after a loss. Used in one event loop.

    As an asynchronous context manager it connects, waits for `connected`, and closes at the end::

        async with Realtime("wss://example.com/realtime", token="crk_…") as db: ...

    Arguments:
    - ``url``: the address of the endpoint. ``http`` and ``https`` are replaced by ``ws`` and
      ``wss``.
    - ``token``: an API key, a JWT, or a function, which may be asynchronous, that returns one. The
      function is called before each connection, and before the token expires. With None, the
      server authenticates the handshake itself, for example by a session cookie that
      ``additional_headers`` contain.
    - ``timeout``: the seconds that the server may take to accept a connection, and to answer.
    - ``on_status(status, detail)``: called with ``"connecting"``, ``"live"``, ``"waiting"`` (with
      ``delay`` in seconds in ``detail``) or ``"closed"`` (with the close ``code``).
    - ``on_error(error)``: called with errors that belong to no request; by default they are
      logged.
    - ``random``: a function that returns numbers from 0 to 1, for the delays of reconnections.
    - Further keywords are passed to ``websockets.connect``, such as ``ssl``.

    Exceptions raised by ``on_status`` and ``on_error`` are logged.

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
        # "idle", "connecting", "live", "waiting" or "closed"
        self.status = "idle"
        self._on_status = on_status
        self._on_error = on_error
        self._connection = Connection(
            self.url,
            token=token,
            timeout=timeout,
            random=random,
            options=options,
            on_status=self._set_status,
            on_error=self._report_error,
            on_terminated=self._terminate,
        )
        self._protocol = self._connection.protocol
        # set while the client is connected, and when it is terminated
        self._connected = asyncio.Event()
        # the event loop in which `start` was called
        self._loop: asyncio.AbstractEventLoop | None = None
        # the task that keeps the client connected
        self._task: asyncio.Task[None] | None = None
        # why the server has terminated the client, that is, does not let it reconnect
        self._termination: RealtimeError | None = None
        # the watches and lists that `_end` must end
        self._watches: weakref.WeakSet[Watch | Live] = weakref.WeakSet()

    # connecting

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
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def start(self) -> None:
        """Connect, and stay connected, in a task of the running event loop.

        ``async with`` calls this method. A second call does nothing, even after `close`.
        """
        if self._task is None:
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._connection.run())

    async def connected(self) -> None:
        """Wait until there is a connection and the server has authenticated it.

        Raises `RealtimeError` if the server does not let this client reconnect, for example
        because the token is invalid. The ``code`` of the error is the WebSocket close code.
        """
        await self._connected.wait()
        if self._termination is not None:
            raise self._termination

    async def close(self) -> None:
        """Close the connection permanently, and end all watches, lists and rooms."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.status != "closed":
            self._set_status("closed", {"code": 1000})
            self._end(None)

    # using the connection

    @property
    def user(self) -> Mapping[str, str] | None:
        """The ``id`` and ``name`` of the authenticated user.

        None for an API key without a user, and before the first connection.
        """
        return self._protocol.user

    @property
    def latency(self) -> float | None:
        """Seconds that the server took to answer the last ping; None before the first one."""
        return self._protocol.latency

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
        """Subscribe to the events of a collection, and return an iterator over them::

            async for event in db.watch("posts", status="published"): ...

        Keywords other than the following are filters, in the protocol's spelling
        (``views__gte=3``).

        - ``filters``: more filters, whose names cannot be keywords here.
        - ``fields``: the fields that ``data`` contains; by default all readable ones.
        - ``events``: some of ``"created"``, ``"updated"``, ``"deleted"``; by default all.
        - ``document``: the id of a document, to receive only its events.
        - ``changed``: names of fields, to receive only updates that changed one of them.
        - ``transitions``: with True, an update that makes a document match is ``"entered"``, and
          one that makes it no longer match ``"left"``.
        - ``snapshot``: with True, all matching documents come first, as an event ``"snapshot"``;
          with ``{"limit": n, "order": "-created_at"}`` the first n of them.
        - ``since`` and ``scope``: the ``cursor`` and ``scope`` of an earlier watch, to continue
          after it.
        - ``buffer``: the number of unread events to keep in memory.

        Raises ``TypeError`` or ``ValueError`` for values that are not JSON. If the server refuses
        the subscription, `Watch.ready` and the iteration raise `RealtimeError`.
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
        watch = Watch(
            self._protocol.subscribe,
            collection,
            _without_none(options),
            buffer,
            self._stop_collected,
            self._report_error,
        )
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
        """Subscribe to a collection, and return a list of the matching documents.

        The list is kept up to date. ``filters``, ``fields``, ``document`` and further keywords are
        those of `watch`.

        - ``order``: the field to sort by, with ``-`` in front for descending order.
        - ``limit``: the number of documents; by default all.
        - ``transitions``: must be False for collections with ``"track": False``. Documents that
          no longer match then stay in the list.
        - ``compare(a, b)``: compares two `Document` objects, and returns a negative number, zero
          or a positive number. Use it if the server does not sort by the values in ``data``, for
          example by a collation.
        - ``on_error(error)``: called if the subscription is refused; by default the client's
          ``on_error``.

        Raises ``TypeError`` or ``ValueError`` for values that are not JSON. If the server refuses
        the subscription, `Live.ready` raises `RealtimeError`.
        """
        options = {
            "filters": {**(filters or {}), **equal},
            "fields": fields,
            "document": document,
            "transitions": transitions,
        }
        live = Live(
            self._protocol.subscribe,
            collection,
            _without_none(options),
            order=order,
            limit=limit,
            compare=compare,
            on_error=on_error or self._report_error,
            call_later=self._protocol.call_later,
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
        """Join a room and return it. For a room that is joined already, return the same object.

        - ``presence``: with False, this client is not among the room's members.
        - ``history``: the number of the last messages to receive, if the room keeps them.
        - ``state``: a JSON object that the other members see, such as ``{"typing": True}``.
        - ``on_resync(reason)``: called if messages were missed that the room no longer keeps.

        The options are ignored if the room is joined already. Raises ``TypeError`` or
        ``ValueError`` if the state is not JSON. If the server refuses, `Room.ready` and the
        iteration raise `RealtimeError`.
        """
        return self._protocol.enter_room(
            name, presence=presence, history=history, state=state, on_resync=on_resync
        )

    def messages(self) -> AsyncIterator[Message]:
        """Return an iterator over the server's messages to this user, or to all of the project.

        It yields the `Message` objects that arrive from now on. It ends when the client is closed,
        and raises `RealtimeError` if the server does not let this client reconnect.
        """
        return self._protocol.messages()

    # called by the connection

    def _set_status(self, status: str, detail: Mapping[str, Any]) -> None:
        self.status = status
        if status == "live":
            self._connected.set()
        elif self._termination is None:
            self._connected.clear()
        if self._on_status is not None:
            call_safely(self._on_status, status, detail)

    def _report_error(self, error: RealtimeError) -> None:
        if self._on_error is not None:
            call_safely(self._on_error, error)
        else:
            logger.error("%s", error)

    def _terminate(self, error: RealtimeError) -> None:
        self._termination = error
        self._set_status("closed", {"code": error.code})
        self._connected.set()
        self._end(error)

    # internal

    def _end(self, error: RealtimeError | None) -> None:
        for watch in list(self._watches):
            watch.end(error)
        self._protocol.end(error)

    def _stop_collected(self, subscription: Subscription) -> None:
        """Stop the subscription of a watch that was garbage collected.

        This may be called in another thread than that of the event loop.
        """
        if self._loop is None:
            subscription.stop()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the connection
            self._loop.call_soon_threadsafe(subscription.stop)


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
