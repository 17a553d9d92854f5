"""The state of a session, and functions that its command handlers share."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from ..delivery.subscription import Subscription
from ..identity import Identity
from ..metrics import metrics
from ..options import Limits, Rate
from ..rooms.local_room import RoomMembership
from ..transport.connection import Connection
from ..utils.limits import PerMinute, TokenBucket
from ..wire import commands, frames
from ..wire.codes import CloseCode, ErrorCode
from .effects import Close, Effect, Send, Steps

# number of consecutive requests over the rate limit after which the connection is closed
MAX_CONSECUTIVE_REFUSALS = 10
# message of the error that answers a request in which the project's code raised an exception
FAILED = "The server could not handle the request, because of an error in its code."
# factor by which `ack` may be more frequent than other requests
ACK_RATE_FACTOR = 10


class SessionState:
    """The state of a session: the client's identity, subscriptions, rooms, and rate limits.

    Times are seconds of a monotonic clock.
    """

    def __init__(
        self, connection: Connection, limits: Limits, *, heartbeat: int, now: float
    ) -> None:
        self.connection = connection
        self.limits = limits
        # seconds between the pings that the client should send
        self.heartbeat = heartbeat
        # whether frames of the client are ignored
        self.closed = False
        # whether `auth` could not be checked, so that requests that the client sent right behind it
        # are refused without closing the connection
        self.has_auth_failed = False
        # subscriptions by name; the hub keeps them up to date after `AdmitConnection`
        self.subscriptions: Mapping[str, Subscription] = {}
        # memberships by name of the room; the hub keeps them up to date, too
        self.rooms: Mapping[str, RoomMembership] = {}
        self._started_at = now
        # number of requests over the rate limit since the last one within it
        self._consecutive_refusals = 0
        # the limits, which are created at first use, since most connections need only one or two
        self._bad_requests: PerMinute | None = None
        self._message_bucket: TokenBucket | None = None
        self._ping_bucket: TokenBucket | None = None
        self._ack_bucket: TokenBucket | None = None
        self._subscribe_bucket: TokenBucket | None = None
        self._broadcast_bucket: TokenBucket | None = None

    @property
    def identity(self) -> Identity | None:
        """The identity of the connection; None before ``auth``."""
        return self.connection.identity

    # frames and closing

    def error(
        self, code: ErrorCode, message: str, id: Any = None, retry_after_ms: int | None = None
    ) -> Send:
        """Return the effect that answers a request with an error."""
        metrics.refusals[code] += 1
        return Send(frames.error(code, message, id, retry_after_ms))

    def failed(self, id: Any = None) -> Send:
        """Return the effect that answers a request in which the project's code raised."""
        return self.error(ErrorCode.INTERNAL_ERROR, FAILED, id)

    def closing(self, code: CloseCode, retry_after_ms: int | None) -> frames.Frame | None:
        """Return the last frame before the close; None to send none."""
        return frames.closing(code, retry_after_ms)

    def close(self, code: CloseCode, retry_after_ms: int | None = None) -> Steps:
        """Close the connection, and ignore frames from now on."""
        if not self.closed:
            self.closed = True
            yield Close(code, retry_after_ms)

    # limits

    def is_name_too_long(self, name: str | None) -> bool:
        """Return whether a name from the client exceeds the limit ``name_bytes``."""
        return name is not None and len(name.encode()) > self.limits.name_bytes

    def check_rate(
        self, command: commands.Command | None, now: float, id: str | int | None = None
    ) -> Generator[Effect, Any, bool]:
        """Count a request, and return whether it is within the rate limit.

        If it is not, an error is sent; after many such requests in a row, the connection is
        closed. ``command`` is None for a frame that was not decoded; ``id`` is the id of such a
        frame, if it is known.
        """
        wait_ms = self._bucket(command).acquire(now)
        if not wait_ms:
            self._consecutive_refusals = 0
            return True
        self._consecutive_refusals += 1
        yield self.error(
            ErrorCode.RATE_LIMITED,
            "Too many requests; send this one again after retry_after_ms.",
            id if command is None else command.id,
            wait_ms,
        )
        if self._consecutive_refusals >= MAX_CONSECUTIVE_REFUSALS:
            yield from self.close(CloseCode.RATE_LIMITED, wait_ms)
        return False

    def count_bad_request(self, now: float) -> Steps:
        """Count a malformed request, and close the connection after too many within a minute."""
        if self._bad_requests is None:
            self._bad_requests = PerMinute(self.limits.bad_requests_per_minute)
        if self._bad_requests.exceeded(now):
            yield from self.close(CloseCode.TOO_MANY_BAD_REQUESTS)

    def _bucket(self, command: commands.Command | None) -> TokenBucket:
        match command:
            case commands.Ping():
                if self._ping_bucket is None:
                    self._ping_bucket = self._new_bucket(self.limits.messages_rate)
                return self._ping_bucket
            case commands.Ack():
                if self._ack_bucket is None:
                    per_second, burst = self.limits.messages_rate
                    self._ack_bucket = self._new_bucket(
                        (per_second * ACK_RATE_FACTOR, burst * ACK_RATE_FACTOR)
                    )
                return self._ack_bucket
            case commands.Subscribe():
                if self._subscribe_bucket is None:
                    self._subscribe_bucket = self._new_bucket(self.limits.subscribe_rate)
                return self._subscribe_bucket
            case commands.Broadcast():
                if self._broadcast_bucket is None:
                    self._broadcast_bucket = self._new_bucket(self.limits.broadcast_rate)
                return self._broadcast_bucket
        if self._message_bucket is None:
            self._message_bucket = self._new_bucket(self.limits.messages_rate)
        return self._message_bucket

    def _new_bucket(self, rate: Rate) -> TokenBucket:
        return TokenBucket(rate, self._started_at)
