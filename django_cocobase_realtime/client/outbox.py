"""The broadcasts of a room that the server has not confirmed, without I/O."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from .errors import RealtimeError
from .interfaces import Frame
from .rates import Request
from .requests import CONNECTION_LOST, RequestChannel
from .streams import Ready

# seconds for which a broadcast may be sent again with the same idempotency key; the server
# remembers keys for five minutes, and would deliver a later repetition once more
IDEMPOTENCY_WINDOW = 240.0


class PendingBroadcast:
    """A broadcast that the server has not confirmed yet."""

    def __init__(self, frame: Frame, created_at: float) -> None:
        # the request
        self.frame = frame
        # seconds since 1970
        self.created_at = created_at
        # done when the server has confirmed the broadcast
        self.sent = Ready()
        # the request on the current connection, or on the last one that it was made on
        self.request: Request | None = None


class Outbox:
    """Sends broadcasts in order while the room is joined, and keeps them until confirmed."""

    def __init__(self, channel: RequestChannel, room: str, clock: Callable[[], float]) -> None:
        self._channel = channel
        # name of the room
        self._room = room
        # returns seconds since 1970
        self._clock = clock
        # whether the room is joined on the current connection
        self._is_open = False
        # number of times that the room was no longer joined
        self._closures = 0
        # broadcasts that are not confirmed, oldest first, as keys of a dictionary
        self._pending: dict[PendingBroadcast, None] = {}

    async def broadcast(self, message: Any, *, echo: bool, ephemeral: bool) -> None:
        """Send a message, and wait until the server has confirmed it.

        If the caller is cancelled, the message is not sent later.
        """
        frame: dict[str, Any] = {"type": "broadcast", "room": self._room, "message": message}
        if not echo:
            frame["echo"] = False
        if ephemeral:
            frame["ephemeral"] = True
        frame["idempotency_key"] = secrets.token_urlsafe(12)
        broadcast = PendingBroadcast(self._channel.prepare(frame), self._clock())
        self._pending[broadcast] = None
        if self._is_open:
            self._send(broadcast)
        try:
            # `expire` uses the wall clock, which continues while the machine is asleep, but it is
            # called only while the client is connected or connecting
            async with asyncio.timeout(IDEMPOTENCY_WINDOW):
                await broadcast.sent.wait()
        except TimeoutError:
            raise self._too_old() from None
        finally:
            self._remove(broadcast)

    def open(self) -> None:
        """Send all pending broadcasts, after the room was joined."""
        self._is_open = True
        self.expire()
        for broadcast in list(self._pending):
            self._send(broadcast)

    def close(self) -> None:
        """Keep broadcasts until the next `open`."""
        self._is_open = False
        self._closures += 1
        for broadcast in self._pending:
            if broadcast.request is not None:
                broadcast.request.cancel()

    def expire(self) -> None:
        """Let those fail that have waited too long."""
        now = self._clock()
        for broadcast in list(self._pending):
            if now - broadcast.created_at >= IDEMPOTENCY_WINDOW:
                self._remove(broadcast)
                broadcast.sent.fail(self._too_old())

    def fail(self, error: RealtimeError) -> None:
        """Let all pending broadcasts fail."""
        for broadcast in list(self._pending):
            self._remove(broadcast)
            broadcast.sent.fail(error)

    def _send(self, broadcast: PendingBroadcast) -> None:
        closures = self._closures

        def handle_reply(reply: Frame) -> None:
            is_error = reply["type"] == "error"
            if reply is CONNECTION_LOST or (is_error and closures != self._closures):
                return  # it is sent again after the next join
            self._pending.pop(broadcast, None)
            if is_error:
                error = RealtimeError.from_frame(reply)
                error.room = self._room
                broadcast.sent.fail(error)
            else:
                broadcast.sent.done()

        broadcast.request = self._channel.send_request(broadcast.frame, handle_reply)

    def _remove(self, broadcast: PendingBroadcast) -> None:
        """Forget a broadcast, and do not send it if it waits for its turn."""
        self._pending.pop(broadcast, None)
        if broadcast.request is not None:
            broadcast.request.cancel()

    def _too_old(self) -> RealtimeError:
        message = "The message could not be sent for four minutes."
        return RealtimeError("closed", message, source="connection", room=self._room)
