"""The class `Realtime`, with which a program connects to a server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from .connection import Connection
from .errors import RealtimeError, call_safely, closed_error, log_error
from .handshake import check_options, check_timeout, normalize_url
from .live import Live
from .messages import Message
from .order import Compare
from .requests import OTHER_THREAD
from .room import Room
from .subscription import Subscription
from .tokens import Token, TokenSource
from .watch import Watch

# keywords of `Realtime`, as opposed to those of `websockets.connect`
OWN_KEYWORDS = frozenset({"token", "timeout", "on_status", "on_error", "random", "debug"})


class Realtime:
    """A connection to one server, which is opened again after a loss. Used in one event loop.

    As an asynchronous context manager it connects, waits for `connected`, and closes at the end::

        async with Realtime("wss://example.com/realtime", token="crk_…") as db: ...

    Arguments:
    - ``url``: the address of the endpoint. ``http`` and ``https`` are replaced by ``ws`` and
      ``wss``.
    - ``token``: an API key, a JWT, or a function, which may be asynchronous, that returns one. The
      function is called before each connection, and before the token expires; it may take
      ``timeout`` seconds. A plain function is called in a thread of its own. With None, the server
      authenticates the handshake itself, for example by a session cookie that
      ``additional_headers`` contain.
    - ``timeout``: the seconds that the server may take to accept a connection, and to answer.
    - ``on_status(status, detail)``: called with ``"connecting"``, ``"live"`` (with the ``user`` in
      ``detail``; again if the user changes), ``"waiting"`` (with ``delay`` in seconds) or
      ``"closed"`` (with the close ``code``).
    - ``on_error(error)``: called with errors that belong to no request; by default they are
      logged.
    - ``random``: a function that returns numbers from 0 to 1, for the delays of reconnections.
    - ``debug``: log all frames, without tokens, at the level ``DEBUG``.
    - Further keywords are passed to ``websockets.connect``, such as ``ssl``.

    Raises ``TypeError`` or ``ValueError`` for unknown keywords and wrong addresses. The functions
    may be asynchronous; exceptions that they raise are passed to ``on_error``, and those of
    ``on_error`` are logged.

    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        timeout: float = 8.0,
        on_status: Callable[[str, Mapping[str, Any]], Any] | None = None,
        on_error: Callable[[RealtimeError], Any] | None = None,
        random: Callable[[], float] = random.random,
        debug: bool = False,
        **options: Any,
    ) -> None:
        check_options(options, OWN_KEYWORDS)
        check_timeout(timeout)
        self.url = normalize_url(url)
        # "idle", "connecting", "live", "waiting" or "closed"
        self.status = "idle"
        self._on_status = on_status
        self._on_error = on_error
        self._connection = Connection(
            self.url,
            tokens=TokenSource(token, timeout),
            timeout=timeout,
            random=random,
            options=options,
            debug=debug,
            on_status=self._set_status,
            on_error=self._report_error,
            on_terminated=self._terminate,
        )
        self._protocol = self._connection.protocol
        # set while the client is connected, and when it has ended
        self._connected = asyncio.Event()
        # the event loop in which `start` was called
        self._loop: asyncio.AbstractEventLoop | None = None
        # the thread of the event loop
        self._thread_id: int | None = None
        # the task that keeps the client connected
        self._task: asyncio.Task[None] | None = None
        # why the client has ended: it was closed, or the server does not let it reconnect
        self._end_reason: RealtimeError | None = None
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

        ``async with`` and the first use call it. A second call does nothing. Raises
        `RealtimeError` if the client has ended.
        """
        self._check_usable()
        if self._task is None:
            self._loop, self._thread_id = asyncio.get_running_loop(), threading.get_ident()
            self._task = self._loop.create_task(self._connection.run())
            # the task may also be cancelled by other code than `close`
            self._task.add_done_callback(lambda _: self._end(closed_error(), final=False))

    async def connected(self) -> None:
        """Wait until there is a connection and the server has authenticated it.

        Raises `RealtimeError` if the client is closed or was not started, or if another attempt
        would not help: the server does not let this client reconnect, for example because the token
        is invalid (``code`` is the WebSocket close code), or the first handshake was refused with
        the HTTP status 401, 403 or 404 (``code``), or the certificate is invalid.
        """
        self._check_usable()
        if self._task is None:
            message = "The client was not started: call start(), or use async with."
            raise RealtimeError("not_connected", message, source="connection")
        await self._connected.wait()
        self._check_usable()

    async def close(self) -> None:
        """Close the connection permanently, and end all watches, lists and rooms."""
        self._check_thread()
        self._end(closed_error(), final=False)
        task = self._task
        if task is None or task.done():
            return
        if not task.cancelling():  # a second cancellation would interrupt the first close
            task.cancel()
        if task is not asyncio.current_task():  # it is in a token function
            # unlike awaiting the task, this raises only a cancellation of this call
            await asyncio.wait([task])

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

        Raises ``TypeError`` or ``ValueError`` for values that the server cannot read, and
        `RealtimeError` if the client has ended. If the server refuses the subscription,
        `Watch.ready` and the iteration raise `RealtimeError`.
        """
        self._begin_use()
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
            options,
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
        on_error: Callable[[RealtimeError], Any] | None = None,
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

        Raises ``TypeError`` or ``ValueError`` for values that the server cannot read, and
        `RealtimeError` if the client has ended. If the server refuses the subscription,
        `Live.ready` raises `RealtimeError`.
        """
        self._begin_use()
        report = self._report_error
        if on_error is not None:
            report = functools.partial(call_safely, self._report_error, on_error)
        options = {
            "filters": {**(filters or {}), **equal},
            "fields": fields,
            "document": document,
            "transitions": transitions,
        }
        live = Live(
            self._protocol.subscribe,
            collection,
            options,
            order=order,
            limit=limit,
            compare=compare,
            on_error=report,
            on_mistake=self._report_error,
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
        on_resync: Callable[[str], Any] | None = None,
    ) -> Room:
        """Join a room and return it. For a room that is joined already, return the same object.

        The calls are counted: the room is left when `Room.leave` has been called as often.

        - ``presence``: with False, this client is not among the room's members.
        - ``history``: the number of the last messages to receive, if the room keeps them.
        - ``state``: a JSON object that the other members see, such as ``{"typing": True}``.
        - ``on_resync(reason)``: called if messages were missed that the room no longer keeps.

        The options are ignored if the room is joined already. Raises ``TypeError`` or
        ``ValueError`` if the server cannot read the state, and `RealtimeError` if the client has
        ended. If the server refuses, `Room.ready` and the iteration raise `RealtimeError`.
        """
        self._begin_use()
        return self._protocol.enter_room(
            name, presence=presence, history=history, state=state, on_resync=on_resync
        )

    def messages(self) -> AsyncIterator[Message]:
        """Return an iterator over the server's messages to this user, or to all of the project.

        It yields the `Message` objects that arrive from now on. It ends when the client is closed,
        and raises `RealtimeError` if the server does not let this client reconnect.
        """
        self._begin_use()
        return self._protocol.messages()

    # called by the connection

    def _set_status(self, status: str, detail: Mapping[str, Any]) -> None:
        if self._end_reason is not None and status != "closed":
            return  # a task that is being cancelled
        self.status = status
        if status in ("live", "closed"):
            self._connected.set()
        else:
            self._connected.clear()
        if self._on_status is not None:
            call_safely(self._report_error, self._on_status, status, detail)

    def _report_error(self, error: RealtimeError) -> None:
        call_safely(log_error, self._on_error or log_error, error)

    def _terminate(self, error: RealtimeError) -> None:
        self._end(error, final=True)
        if self._on_error is not None:
            self._report_error(error)  # otherwise, all that wait for the client raise it

    # internal

    def _check_thread(self) -> None:
        if self._thread_id not in (None, threading.get_ident()):
            raise RuntimeError(OTHER_THREAD)
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return  # between two runs of the loop
        if self._loop not in (None, running):
            raise RuntimeError(OTHER_THREAD)

    def _begin_use(self) -> None:
        self._check_usable()
        with contextlib.suppress(RuntimeError):  # no event loop is running yet
            self.start()

    def _check_usable(self) -> None:
        """Raise an exception if the client has ended, or belongs to another thread or loop."""
        self._check_thread()
        if self._end_reason is not None:
            raise self._end_reason.with_traceback(None)

    def _end(self, reason: RealtimeError, *, final: bool) -> None:
        """End all watches, lists and rooms. A second call does nothing."""
        if self._end_reason is not None:
            return
        self._end_reason = reason
        for watch in list(self._watches):
            watch.end(reason, final=final)
        self._protocol.end(reason, final=final)
        self._set_status("closed", {"code": reason.code if final else 1000})

    def _stop_collected(self, subscription: Subscription) -> None:
        """Stop the subscription of a watch that was collected, perhaps in another thread."""
        if self._loop is None:
            subscription.stop()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the connection
            self._loop.call_soon_threadsafe(subscription.stop)
