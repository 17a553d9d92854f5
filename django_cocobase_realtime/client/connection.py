"""The socket around the conversation: connect, read, write, come back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from .backoff import Backoff, Pause
from .errors import RealtimeError, Reply, guarded, logger
from .live import Compare, Live
from .protocol import EXPIRY_SHARE, Conversation, Frame
from .room import Room
from .subscription import Subscription
from .watch import Watch

Token = str | Callable[[], str | Awaitable[str | None] | None] | None
ABNORMAL = 1006


def now() -> float:
    """Seconds since 1970: a clock that goes on while a machine sleeps."""
    return time.time()


class Realtime:
    """A client of one server, for one event loop.

    ``token`` is an API key, a JWT, or a function (plain or asynchronous) that gives one: it is
    asked before each connection, and before a token expires. ``timeout`` is how many seconds the
    server may take to accept a connection or to answer a ping. ``on_status`` is called with
    ``connecting``, ``live``, ``waiting`` (with ``delay`` in seconds) or ``closed`` (with ``code``);
    ``on_error`` with what belongs to no request, by default a log entry. Further options are
    those of ``websockets.connect``, such as ``ssl`` or ``additional_headers``.

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
        self._token = token
        self._timeout = timeout
        self._on_status = on_status
        self._on_error = on_error
        self._options = {"ping_interval": None, "max_size": None, "close_timeout": 1, **options}
        self._backoff = Backoff(random)
        self._talk = Conversation(
            send=self._send,
            later=self._later,
            on_live=self._authenticated,
            on_error=self._report,
            timeout=timeout,
            clock=now,
        )
        self._outgoing: asyncio.Queue[Frame] = asyncio.Queue()
        self._live = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._failed: RealtimeError | None = None
        self._watches: weakref.WeakSet[Watch | Live] = weakref.WeakSet()
        self._renewing: asyncio.Task[None] | None = None

    # life

    async def __aenter__(self) -> Realtime:
        self.start()
        try:
            await self.live_now()
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
            self._task = self._loop.create_task(self._run())

    async def live_now(self) -> None:
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
            self._become("closed", code=1000)
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
        transitions: bool = False,
        snapshot: bool | Mapping[str, Any] = False,
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
            "fields": fields and list(fields),
            "events": events and list(events),
            "document": document,
            "changed": changed and list(changed),
            "transitions": transitions or None,
            "snapshot": snapshot if isinstance(snapshot, bool) else dict(snapshot),
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
        compare: Compare | None = None,
        on_error: Callable[[RealtimeError], None] | None = None,
        **equal: Any,
    ) -> Live:
        """The documents that match, kept up to date, in ``order`` (a field, ``-`` downwards)."""
        options: dict[str, Any] = {"filters": {**(filters or {}), **equal}}
        if fields is not None:
            options["fields"] = list(fields)
        if document is not None:
            options["document"] = document
        live = Live(
            self._talk,
            collection,
            options,
            order=order,
            limit=limit,
            compare=compare,
            on_error=on_error or self._report,
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
    ) -> Room:
        """Enter a room, or get it where this client is in it already."""
        room = self._talk.rooms.get(name)
        if room is None:
            room = Room(
                self._talk,
                name,
                presence=presence,
                history=history,
                state=state,
                on_error=self._report,
                clock=now,
            )
            self._talk.rooms[name] = room
            if self._talk.live:
                room.join()
        return room

    # the socket

    async def _run(self) -> None:
        while True:
            self._become("connecting")
            code, closing = await self._attempt()
            lived = self._talk.lost()
            self._live.clear()
            retry = closing.get("retry_after_ms") if closing else None
            pause = self._backoff.after(code, retry, lived)
            if pause is None:
                reason = closing.get("reason") if closing else None
                self._fail(code, reason or f"Closed by the server with {code}.")
                return
            await self._rest(pause)

    async def _attempt(self) -> tuple[int, Reply | None]:
        """One connection, to its end. Returns the close code, and the ``closing`` frame if any."""
        try:
            return await self._converse(await self._new_token())
        except asyncio.CancelledError:
            self._talk.lost()
            raise
        except (OSError, WebSocketException) as error:
            logger.warning("No connection to %s: %s", self.url, error or repr(error))
        except Exception as error:
            self._report(RealtimeError("not_connected", repr(error)))
        return ABNORMAL, None

    async def _rest(self, pause: Pause) -> None:
        """Wait; by the wall clock, which goes on while a machine sleeps."""
        self._become("waiting", delay=pause.delay)
        due = now() + pause.delay
        while (left := due - now()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, 1.0))

    async def _converse(self, token: str | None) -> tuple[int, Reply | None]:
        # compression costs the server more than it saves; whoever wants it says so
        options = {"open_timeout": self._timeout, "compression": None, **self._options}
        async with connect(self.url, **options) as socket:
            self._outgoing = asyncio.Queue()
            tasks = [asyncio.create_task(work(socket)) for work in (self._write, self._beat)]
            try:
                self._talk.opened(token)
                with contextlib.suppress(ConnectionClosed):
                    async for text in socket:
                        self._talk.receive(json.loads(text))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        closing = self._talk.closing
        code = closing["code"] if closing else socket.close_code
        return code or ABNORMAL, closing

    async def _write(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send(json.dumps(await self._outgoing.get()))

    async def _beat(self, socket: ClientConnection) -> None:
        """Ends, and the connection with it, when the line is dead."""
        while self._talk.tick():
            renew_at = self._talk.renew_at
            if renew_at is not None and now() >= renew_at:
                self._talk.renew_at = None
                self._renewing = asyncio.create_task(self._renew())
            await asyncio.sleep(min(1.0, self._timeout / 4))
        socket.transport.abort()

    async def _renew(self) -> None:
        connection = self._talk.connection
        try:
            token = await self._new_token()
        except Exception as error:  # the old one holds until it expires
            self._report(RealtimeError("not_refreshed", repr(error)))
            return
        if self._talk.live and self._talk.connection == connection:
            self._talk.authenticate(token)

    async def _new_token(self) -> str | None:
        token = self._token() if callable(self._token) else self._token
        if token is None or isinstance(token, str):
            return token
        return await token

    # what the conversation calls

    def _send(self, frame: Frame) -> None:
        self._outgoing.put_nowait(frame)

    def _later(self, delay: float, act: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay, act)

    def _authenticated(self, reply: Reply) -> None:
        expires_at = reply.get("expires_at")
        if callable(self._token) and expires_at is not None:
            left = datetime.fromisoformat(expires_at).timestamp() - now()
            self._talk.renew_at = now() + max(5.0, EXPIRY_SHARE * left)
        if not self._talk.live:
            self._become("live")
            self._live.set()

    def _report(self, error: RealtimeError) -> None:
        if self._on_error is not None:
            guarded(self._on_error, error)
        else:
            logger.error("%s", error)

    # inside

    def _become(self, status: str, **detail: Any) -> None:
        self.status = status
        if self._on_status is not None:
            guarded(self._on_status, status, detail)

    def _fail(self, code: int, message: str) -> None:
        self._failed = RealtimeError(code, message)
        self._become("closed", code=code)
        self._live.set()
        self._end(self._failed)

    def _end(self, error: RealtimeError | None) -> None:
        for watch in list(self._watches):
            watch.end(error)
        over = error or RealtimeError("closed", "The client was closed.")
        for room in list(self._talk.rooms.values()):
            room.end(over, quietly=error is None)
        self._talk.rooms.clear()
        self._talk.subscriptions.clear()

    def _release(self, subscription: Subscription) -> None:
        """A watch that nobody holds any more."""
        if self._loop is None:
            subscription.stop()
            return
        with contextlib.suppress(RuntimeError):  # the loop is gone, and the connection with it
            self._loop.call_soon_threadsafe(subscription.stop)
