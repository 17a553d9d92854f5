"""The socket around the conversation: connect, read, write, come back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, WebSocketException
except ImportError as missing:
    raise ImportError(
        'The client needs websockets: pip install "django-cocobase-realtime[client]"'
    ) from missing

from .backoff import Backoff
from .errors import RealtimeError, Reply, logger
from .protocol import EXPIRY_SHARE, Conversation, Frame

Token = str | Callable[[], str | Awaitable[str | None] | None] | None
ABNORMAL = 1006


def now() -> float:
    """Seconds since 1970: a clock that goes on while a machine sleeps."""
    return time.time()


class Owner(Protocol):
    """Who is told how the connection fares."""

    def on_status(self, status: str, detail: Mapping[str, Any]) -> None:
        """``connecting``, ``live``, ``waiting``."""

    def on_error(self, error: RealtimeError) -> None:
        """What belongs to no request."""

    def on_over(self, error: RealtimeError) -> None:
        """The server wants to see this client no more."""


class Connection:
    """One socket after another to one server, with one conversation."""

    def __init__(
        self,
        owner: Owner,
        url: str,
        token: Token,
        timeout: float,
        random: Callable[[], float],
        options: Mapping[str, Any],
    ) -> None:
        self._owner = owner
        self._url = url
        self._token = token
        self._timeout = timeout
        # compression costs the server more than it saves; whoever wants it says so
        defaults = {
            "ping_interval": None,
            "max_size": None,
            "close_timeout": 1,
            "compression": None,
        }
        self._options = {**defaults, "open_timeout": timeout, **options}
        self._backoff = Backoff(random)
        self._outgoing: asyncio.Queue[Frame] = asyncio.Queue()
        self._renewing: asyncio.Task[None] | None = None
        self.talk = Conversation(
            send=lambda frame: self._outgoing.put_nowait(frame),
            later=lambda delay, act: void(asyncio.get_running_loop().call_later(delay, act)),
            on_live=self._authenticated,
            on_error=owner.on_error,
            timeout=timeout,
            clock=now,
        )

    async def run(self) -> None:
        """Until the server turns us away for good, or this is cancelled."""
        while True:
            self._owner.on_status("connecting", {})
            code, closing = await self._attempt()
            lived = self.talk.lost()
            said = closing or {}
            delay = self._backoff.next_delay(code, said.get("retry_after_ms"), lived)
            if delay is None:
                reason = said.get("reason") or f"Closed by the server with {code}."
                self._owner.on_over(RealtimeError(code, reason))
                return
            await self._wait_before_retry(delay)

    async def _attempt(self) -> tuple[int, Reply | None]:
        """One connection, to its end. Returns the close code, and the ``closing`` frame if any."""
        try:
            return await self._converse(await self._new_token())
        except asyncio.CancelledError:
            self.talk.lost()
            raise
        except (OSError, WebSocketException) as error:
            logger.warning("No connection to %s: %s", self._url, error or repr(error))
        except Exception as error:
            self._owner.on_error(RealtimeError("not_connected", repr(error)))
        return ABNORMAL, None

    async def _wait_before_retry(self, delay: float) -> None:
        """Wait; by the wall clock, which goes on while a machine sleeps, but may be set back."""
        self._owner.on_status("waiting", {"delay": delay})
        due, latest = now() + delay, time.monotonic() + delay
        while (left := min(due - now(), latest - time.monotonic())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, 1.0))

    async def _converse(self, token: str | None) -> tuple[int, Reply | None]:
        async with connect(self._url, **self._options) as socket:
            self._outgoing = asyncio.Queue()
            tasks = [asyncio.create_task(work(socket)) for work in (self._write, self._beat)]
            try:
                self.talk.opened(token)
                with contextlib.suppress(ConnectionClosed):
                    async for text in socket:
                        self.talk.receive(json.loads(text))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        closing = self.talk.closing
        code = closing["code"] if closing else socket.close_code
        return code or ABNORMAL, closing

    async def _write(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send(json.dumps(await self._outgoing.get()))

    async def _beat(self, socket: ClientConnection) -> None:
        """Ends, and the connection with it, when the line is dead."""
        while self.talk.tick():
            renew_at = self.talk.renew_at
            if renew_at is not None and now() >= renew_at:
                self.talk.renew_at = None
                self._renewing = asyncio.create_task(self._renew())
            await asyncio.sleep(min(1.0, self._timeout / 4))
        socket.transport.abort()

    async def _renew(self) -> None:
        connection = self.talk.connection
        try:
            token = await self._new_token()
        except Exception as error:  # the old one holds until it expires
            self._owner.on_error(RealtimeError("not_refreshed", repr(error)))
            return
        if self.talk.live and self.talk.connection == connection:
            self.talk.authenticate(token)

    async def _new_token(self) -> str | None:
        token = self._token() if callable(self._token) else self._token
        if token is None or isinstance(token, str):
            return token
        return await token

    def _authenticated(self, reply: Reply) -> None:
        expires_at = reply.get("expires_at")
        if callable(self._token) and expires_at is not None:
            left = datetime.fromisoformat(expires_at).timestamp() - now()
            self.talk.renew_at = now() + max(5.0, EXPIRY_SHARE * left)
        if not self.talk.live:
            self._owner.on_status("live", {})


def void(_: object) -> None:
    """Nothing, of anything."""
