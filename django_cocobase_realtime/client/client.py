"""The class `Realtime`, with which a program connects to a server."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from .count import Count, Names
from .errors import RealtimeError, call_safely
from .lifecycle import Lifecycle
from .live import Live
from .messages import Message
from .room import Room
from .subscription import Subscription
from .watch import Watch


class Realtime(Lifecycle):
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
          with ``{"limit": n, "order": ["-created_at"]}`` the first n of them.
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
        order: str | Sequence[str] | None = None,
        limit: int | None = None,
        after: str | None = None,
        transitions: bool = True,
        on_error: Callable[[RealtimeError], Any] | None = None,
        **equal: Any,
    ) -> Live:
        """Subscribe to a collection, and return a list of the matching documents.

        The list is kept up to date: with ``order``, ``limit`` or ``after`` by the server, which
        some collections do not allow. Without them, it has all documents, and new ones are at its
        end. ``filters``, ``fields``, ``document`` and further keywords are those of `watch`.

        - ``order``: the fields to sort by, each with ``-`` in front for descending order, in a list
          or separated by commas. Documents that are equal in them are sorted by key.
        - ``limit``: the number of documents.
        - ``after``: the ``next`` of another list, with the same order, to show the page behind it.
        - ``transitions``: must be False for collections with ``"track": False``. Documents that
          no longer match then stay in the list.
        - ``on_error(error)``: called if the subscription is refused; by default the client's
          ``on_error``.

        Raises ``TypeError`` or ``ValueError`` for values that the server cannot read, and
        `RealtimeError` if the client has ended. If the server refuses the subscription,
        `Live.ready` raises `RealtimeError`.
        """
        self._begin_use()
        options = {
            "filters": {**(filters or {}), **equal},
            "fields": fields,
            "document": document,
            "order": order,
            "limit": limit,
            "after": after,
        }
        live = Live(
            self._protocol.subscribe,
            collection,
            options,
            transitions=transitions,
            on_error=self._create_report(on_error),
            on_mistake=self._report_error,
        )
        self._watches.add(live)
        return live

    def count(
        self,
        collection: str,
        /,
        *,
        filters: Mapping[str, Any] | None = None,
        document: str | None = None,
        group_by: Names | None = None,
        sum: Names | None = None,
        avg: Names | None = None,
        min: Names | None = None,
        max: Names | None = None,
        on_error: Callable[[RealtimeError], Any] | None = None,
        **equal: Any,
    ) -> Count:
        """Subscribe to the number of matching documents, and return an object that shows it.

        The server keeps it up to date, which some collections do not allow. ``filters``,
        ``document`` and further keywords are those of `watch`.

        - ``group_by``: the fields whose values make groups, a name or several.
        - ``sum``, ``avg``, ``min``, ``max``: the fields to aggregate in each group.
        - ``on_error(error)``: called if the subscription is refused; by default the client's
          ``on_error``.

        Raises ``TypeError`` or ``ValueError`` for values that the server cannot read, and
        `RealtimeError` if the client has ended. If the server refuses the subscription,
        `Count.ready` raises `RealtimeError`.
        """
        self._begin_use()
        options = {
            "filters": {**(filters or {}), **equal},
            "document": document,
            "group_by": group_by,
            "sum": sum,
            "avg": avg,
            "min": min,
            "max": max,
        }
        count = Count(
            self._protocol.subscribe,
            collection,
            options,
            on_error=self._create_report(on_error),
            on_mistake=self._report_error,
        )
        self._watches.add(count)
        return count

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

    # internal

    def _create_report(
        self, on_error: Callable[[RealtimeError], Any] | None
    ) -> Callable[[RealtimeError], None]:
        """Return a function that passes errors to a function of the program, if there is one."""
        if on_error is None:
            return self._report_error
        return functools.partial(call_safely, self._report_error, on_error)

    def _stop_collected(self, subscription: Subscription) -> None:
        """Stop the subscription of a watch that was collected, perhaps in another thread."""
        if self._loop is None:
            subscription.stop()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the connection
            self._loop.call_soon_threadsafe(subscription.stop)
