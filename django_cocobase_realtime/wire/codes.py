"""All error codes and close codes of the protocol, and the reasons of its ``resync`` frames."""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum


class ErrorCode(StrEnum):
    """The codes of ``error`` frames. An error does not close the connection."""

    BAD_REQUEST = "bad_request"
    UNKNOWN_TYPE = "unknown_type"
    NOT_AUTHENTICATED = "not_authenticated"
    AUTHENTICATION_FAILED = "authentication_failed"
    UNKNOWN_COLLECTION = "unknown_collection"
    INVALID_FILTER = "invalid_filter"
    FORBIDDEN = "forbidden"
    NOT_JOINED = "not_joined"
    NOT_SUBSCRIBED = "not_subscribed"
    LIMIT_EXCEEDED = "limit_exceeded"
    RATE_LIMITED = "rate_limited"
    TOO_LARGE = "too_large"
    INTERNAL_ERROR = "internal_error"


class ResyncReason(StrEnum):
    """The reasons of ``resync`` frames, with which a subscription begins again and continues."""

    SCOPE_CHANGED = "scope_changed"
    LIMIT_EXCEEDED = "limit_exceeded"


class Retry(Enum):
    """When a client should reconnect after a close: not at all, with backoff, or immediately."""

    STOP = "stop"
    BACKOFF = "backoff"
    AT_ONCE = "at once"


class CloseCode(IntEnum):
    """WebSocket close codes, all in the private range 4000-4999 (RFC 6455, section 7.4.2).

    After 41xx the client should reconnect with backoff, after 42xx immediately, and after 45xx not
    at all. The exception is 4504, after which it should reconnect with backoff, since connections
    of its user may end.
    """

    INTERNAL_ERROR = 4100
    UNAVAILABLE = 4101
    TOKEN_EXPIRED = 4110
    SLOW_CONSUMER = 4120
    POSITION_LOST = 4121
    HEARTBEAT_MISSED = 4122
    RATE_LIMITED = 4130
    OVERLOADED = 4131
    DRAINING = 4200
    PERMISSIONS_CHANGED = 4201
    BAD_CREDENTIAL = 4500
    AUTH_TIMEOUT = 4501
    AUTH_REQUIRED = 4502
    TOO_MANY_BAD_REQUESTS = 4503
    CONNECTION_LIMIT = 4504
    FORBIDDEN = 4505

    @property
    def reason(self) -> str:
        """The text that explains the code in the ``closing`` frame."""
        return _REASONS[self]

    @property
    def retry(self) -> Retry:
        """When the client should reconnect."""
        if self < 4200 or self is CloseCode.CONNECTION_LIMIT:
            return Retry.BACKOFF
        return Retry.AT_ONCE if self < 4300 else Retry.STOP


_REASONS = {
    CloseCode.INTERNAL_ERROR: "The server met an internal error; reconnect with backoff.",
    CloseCode.UNAVAILABLE: "The database is unavailable; reconnect after five seconds or more.",
    CloseCode.TOKEN_EXPIRED: "The token expired and was not refreshed; reconnect with a new one.",
    CloseCode.SLOW_CONSUMER: "The connection does not read fast enough; reconnect and resume.",
    CloseCode.POSITION_LOST: "The position in the stream was lost; reconnect and resume.",
    CloseCode.HEARTBEAT_MISSED: "No message arrived in time; reconnect and resume.",
    CloseCode.RATE_LIMITED: "Too many requests; reconnect after retry_after_ms.",
    CloseCode.OVERLOADED: "The server accepts no more connections; retry after retry_after_ms.",
    CloseCode.DRAINING: "The server is going down; reconnect at a random time in retry_after_ms.",
    CloseCode.PERMISSIONS_CHANGED: "Permissions changed; reconnect now and fetch again.",
    CloseCode.BAD_CREDENTIAL: "The credential is wrong or was revoked, or no user is logged in.",
    CloseCode.AUTH_TIMEOUT: "No auth message arrived in time.",
    CloseCode.AUTH_REQUIRED: "The first message must be auth.",
    CloseCode.TOO_MANY_BAD_REQUESTS: "Too many malformed requests.",
    CloseCode.CONNECTION_LIMIT: "The user has too many connections; retry after retry_after_ms.",
    CloseCode.FORBIDDEN: "Access is forbidden.",
}
