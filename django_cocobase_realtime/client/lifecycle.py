"""The life of a client: it connects, reports its status, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from .connection import Connection
from .errors import RealtimeError, call_safely, closed_error, log_error
from .handshake import check_options, check_timeout, normalize_url
from .requests import OTHER_THREAD
from .tokens import Token, TokenSource

# keywords of `Realtime`, as opposed to those of `websockets.connect`
OWN_KEYWORDS = frozenset({"token", "timeout", "on_status", "on_error", "random", "debug"})


class Ending(Protocol):
    """A watch, a list or a count, which ends with the client."""

    def end(self, reason: RealtimeError, *, final: bool) -> None:
        """End because the client is closed; with ``final`` the server has refused it."""


class Lifecycle:
    """Opens the connection of a client, keeps it, and ends it together with all that uses it."""

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
        # the watches, lists and counts that `_end` must end
        self._watches: weakref.WeakSet[Ending] = weakref.WeakSet()

    # connecting

    async def __aenter__(self) -> Self:
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
        """Close the connection permanently, and end all watches, lists, counts and rooms."""
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
        """End all watches, lists, counts and rooms. A second call does nothing."""
        if self._end_reason is not None:
            return
        self._end_reason = reason
        for watch in list(self._watches):
            watch.end(reason, final=final)
        self._protocol.end(reason, final=final)
        self._set_status("closed", {"code": reason.code if final else 1000})
