"""One connection's conversation. Pure: no sockets, no database, no clock of its own.

Each entry point is a generator of effects. Whoever drives it performs an effect and sends its
result back, so the conversation reads from top to bottom and is tested without a socket::

    steps = session.receive('{"type": "ping"}', now)
    effect = next(steps)          # Send(frame={"type": "pong"})
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from ..conf import Limits
from ..identity import Identity
from ..transport.connection import Connection
from ..utils.limits import PerMinute, TokenBucket
from ..wire import commands, frames
from ..wire.codes import CloseCode, ErrorCode
from ..wire.commands import InvalidCommand
from . import auth_commands, room_commands, subscription_commands
from .effects import Close, Effect, Send, Steps

MAX_CONSECUTIVE_REFUSALS = 10
CONTROL_RATE_FACTOR = 10  # ping and ack may come ten times as often as other requests


class Session:
    """State of one connection: who it is, what it may still ask for.

    ``heartbeat`` in seconds is told to the client. Times are seconds of a monotonic clock.
    """

    def __init__(
        self, connection: Connection, limits: Limits, *, heartbeat: int, now: float
    ) -> None:
        self.connection = connection
        self.limits = limits
        self.heartbeat = heartbeat
        self.closed = False
        self._started_at = now
        # made at first use: most connections need but one or two
        self._bad_requests: PerMinute | None = None
        self._message_bucket: TokenBucket | None = None
        self._control_bucket: TokenBucket | None = None
        self._subscribe_bucket: TokenBucket | None = None
        self._broadcast_bucket: TokenBucket | None = None
        self._consecutive_refusals = 0

    @property
    def identity(self) -> Identity | None:
        """Who this is; None before ``auth``."""
        return self.connection.identity

    # entry points

    def receive(self, text: str | None, now: float) -> Steps:
        """A frame came in; None stands for a binary one."""
        if self.closed:
            return
        if text is None:
            yield from self._reject(
                InvalidCommand(ErrorCode.BAD_REQUEST, "Send JSON in text frames."), now
            )
            return
        limit = self.limits.message_bytes if self.identity else self.limits.auth_bytes
        if len(text) > limit or len(text.encode("utf-8", "surrogatepass")) > limit:
            if (yield from self.check_rate(None, now)):
                yield self.error(ErrorCode.TOO_LARGE, f"A frame may have {limit} bytes at most.")
            return
        try:
            command = commands.decode(text)
        except InvalidCommand as error:
            yield from self._reject(error, now)
            return
        if (yield from self.check_rate(command, now)):
            yield from self._handle(command)

    def auth_timeout(self) -> Steps:
        """``auth_timeout`` seconds have passed."""
        if self.identity is None:
            yield from self.close(CloseCode.AUTH_TIMEOUT)

    def expired(self) -> Steps:
        """The credential's ``expires_at`` has passed and no refresh came."""
        yield from self.close(CloseCode.TOKEN_EXPIRED)

    def idle(self) -> Steps:
        """Nothing came for ``idle_timeout`` seconds."""
        yield from self.close(CloseCode.HEARTBEAT_MISSED)

    def close(self, code: CloseCode, retry_after_ms: int | None = None) -> Steps:
        """End the conversation; what comes later is not read."""
        if not self.closed:
            self.closed = True
            yield Close(code, retry_after_ms)

    # what handlers use

    def closing(self, code: CloseCode, retry_after_ms: int | None) -> frames.Frame | None:
        """The last frame, if there is to be one."""
        return frames.closing(code, retry_after_ms)

    def error(
        self, code: ErrorCode, message: str, id: Any = None, retry_after_ms: int | None = None
    ) -> Send:
        """The effect of answering with an error."""
        return Send(frames.error(code, message, id, retry_after_ms))

    def is_name_too_long(self, name: str | None) -> bool:
        """Whether a name that the client chose is longer than ``name_bytes``."""
        return name is not None and len(name.encode()) > self.limits.name_bytes

    # inside

    def _handle(self, command: commands.Command) -> Steps:
        if isinstance(command, commands.Ping):
            yield Send(frames.reply("pong", command.id))
        elif isinstance(command, commands.Auth):
            yield from auth_commands.auth(self, command)
        elif self.identity is None:
            yield self.error(
                ErrorCode.NOT_AUTHENTICATED, "Send auth before anything else.", command.id
            )
            yield from self.close(CloseCode.AUTH_REQUIRED)
        else:
            if isinstance(command, commands.Ack):
                self.connection.writer.ack(command.cursor, self.limits.unacked_events)
                return
            handler: Callable[[Session, Any], Steps] = _HANDLERS[type(command)]
            yield from handler(self, command)

    def check_rate(
        self, command: commands.Command | None, now: float
    ) -> Generator[Effect, Any, bool]:
        """Whether a request's rate allows it; None stands for one that was not read.

        Refuses what came too fast; persistent ones are the end.
        """
        refused = self._bucket(command).acquire(now)
        if not refused:
            self._consecutive_refusals = 0
            return True
        self._consecutive_refusals += 1
        yield self.error(
            ErrorCode.RATE_LIMITED,
            "Too many requests; send this one again after retry_after_ms.",
            None if command is None else command.id,
            refused,
        )
        if self._consecutive_refusals >= MAX_CONSECUTIVE_REFUSALS:
            yield from self.close(CloseCode.RATE_LIMITED, refused)
        return False

    def _bucket(self, command: commands.Command | None) -> TokenBucket:
        """What pays for a command."""
        match command:
            case commands.Ping() | commands.Ack():
                if self._control_bucket is None:
                    per_second, burst = self.limits.messages_rate
                    rate = (per_second * CONTROL_RATE_FACTOR, burst * CONTROL_RATE_FACTOR)
                    self._control_bucket = TokenBucket(rate, self._started_at)
                return self._control_bucket
            case commands.Subscribe():
                if self._subscribe_bucket is None:
                    self._subscribe_bucket = TokenBucket(
                        self.limits.subscribe_rate, self._started_at
                    )
                return self._subscribe_bucket
            case commands.Broadcast():
                if self._broadcast_bucket is None:
                    self._broadcast_bucket = TokenBucket(
                        self.limits.broadcast_rate, self._started_at
                    )
                return self._broadcast_bucket
        if self._message_bucket is None:
            self._message_bucket = TokenBucket(self.limits.messages_rate, self._started_at)
        return self._message_bucket

    def _reject(self, error: InvalidCommand, now: float) -> Steps:
        yield self.error(error.code, str(error), error.id)
        yield from self.count_bad_request(now)

    def count_bad_request(self, now: float) -> Steps:
        """One more malformed request; too many are the end."""
        if self._bad_requests is None:
            self._bad_requests = PerMinute(self.limits.bad_requests_per_minute)
        if self._bad_requests.exceeded(now):
            yield from self.close(CloseCode.TOO_MANY_BAD_REQUESTS)


_HANDLERS: dict[type, Callable[[Session, Any], Steps]] = {
    commands.Subscribe: subscription_commands.subscribe,
    commands.Unsubscribe: subscription_commands.unsubscribe,
    commands.Join: room_commands.join,
    commands.Leave: room_commands.leave,
    commands.State: room_commands.state,
    commands.Broadcast: room_commands.broadcast,
}
