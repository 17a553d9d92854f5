"""Addresses, options and errors of the WebSocket handshake."""

from __future__ import annotations

import asyncio
import difflib
import inspect
import ssl
from collections.abc import Mapping
from typing import Any

try:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidProxy, InvalidStatus, InvalidURI
    from websockets.uri import parse_uri
except ImportError as missing:
    raise ImportError(
        'The client needs websockets: pip install "django-cocobase-realtime[client]"'
    ) from missing

from .backoff import UNAVAILABLE_DELAY
from .errors import RealtimeError

# HTTP status with which a server answers if a proxy does not pass WebSockets on
UPGRADE_REQUIRED = 426
# HTTP statuses of a wrong address, or of credentials that the server or a proxy does not accept
FINAL_STATUSES = frozenset({401, 403, 404})
# the longest delay in seconds that a server may ask for in the handshake
MAX_RETRY_AFTER = 60
# options of `websockets.connect`. It sends no pings, because those of the protocol also measure
# the latency and notice that the machine was asleep. Compression costs the server more than it
# saves.
DEFAULT_OPTIONS: Mapping[str, Any] = {
    "ping_interval": None,
    "max_size": None,
    "close_timeout": 1,
    "compression": None,
}
# parameters of `websockets.connect` that make no sense here
_UNUSABLE = frozenset({"self", "uri", "kwargs", "process_exception", "reconnect_delays"})
# parameters of `create_connection` that `websockets.connect` sets itself
_OCCUPIED = frozenset({"self", "protocol_factory"})
_MISCONFIGURED_PROXY = (
    "A proxy in front of the server does not pass WebSockets on: it drops the headers Upgrade and "
    "Connection. The server's log names the proxy."
)


def normalize_url(url: str) -> str:
    """Return an address with the scheme ``ws`` or ``wss``. Raises ``ValueError`` for others."""
    if not isinstance(url, str):
        raise TypeError(f"url must be a string, not {type(url).__name__}.")
    scheme, separator, rest = url.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme.lower())
    if not separator or scheme not in ("ws", "wss"):
        raise ValueError(f"The URL {url!r} must begin with wss://, ws://, https:// or http://.")
    try:
        parse_uri(f"{scheme}://{rest}")
    except (InvalidURI, ValueError) as error:
        raise ValueError(f"The URL {url!r} is invalid: {error}") from None
    return f"{scheme}://{rest}"


def check_options(options: Mapping[str, Any], own: frozenset[str]) -> None:
    """Raise ``TypeError`` for keywords that `websockets.connect` does not have.

    ``own`` are names of the client's own parameters, which may have been misspelt.
    """
    connection = inspect.signature(asyncio.BaseEventLoop.create_connection).parameters
    known = set(inspect.signature(connect.__init__).parameters) - _UNUSABLE
    known |= set(connection) - _OCCUPIED
    for name in options:
        if name not in known:
            similar = difflib.get_close_matches(name, known | own, 1)
            hint = f" Did you mean {similar[0]!r}?" if similar else ""
            raise TypeError(f"Realtime() got an unexpected keyword argument {name!r}.{hint}")


def check_timeout(timeout: float) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless a timeout is a positive number."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}.")
    if not timeout > 0:
        raise ValueError(f"timeout must be positive, not {timeout}.")


class HandshakeFailure:
    """Why a connection was not opened, and whether another attempt may help."""

    def __init__(self, cause: Exception) -> None:
        # the error to raise or to report
        self.error = _error_of(cause)
        self.error.__cause__ = cause
        # whether it is the program's mistake, so that the first connection is not tried again
        self.is_final = _is_mistake(cause)
        # whether it is reported although the client tries again
        self.is_reported = self.is_final or self.error.code == "upgrade_required"
        # milliseconds before the next attempt: a mistake in a configuration lasts longer than an
        # outage
        self.retry_after_ms = int(UNAVAILABLE_DELAY * 1000) if self.is_reported else None
        if isinstance(cause, InvalidStatus):
            # a server that is overloaded or in maintenance names the time
            seconds = cause.response.headers.get("Retry-After", "")
            if cause.response.status_code in (429, 503) and seconds.isdecimal():
                self.retry_after_ms = min(int(seconds), MAX_RETRY_AFTER) * 1000


def _is_mistake(cause: Exception) -> bool:
    if isinstance(cause, InvalidStatus):
        return cause.response.status_code in FINAL_STATUSES
    # a wrong address, option or proxy, or a missing package for the proxy
    mistakes = (InvalidURI, InvalidProxy, TypeError, ValueError, AttributeError, ImportError)
    return isinstance(cause, (ssl.SSLCertVerificationError, *mistakes))


def _error_of(cause: Exception) -> RealtimeError:
    code: str | int = "not_connected"
    message = str(cause) or repr(cause)
    if isinstance(cause, InvalidStatus):
        status = cause.response.status_code
        if status == UPGRADE_REQUIRED:
            code, message = "upgrade_required", _MISCONFIGURED_PROXY
        elif status in FINAL_STATUSES:
            code = status
            message = f"The server refused the handshake with the HTTP status {status}."
    elif isinstance(cause, ssl.SSLCertVerificationError):
        code = "invalid_certificate"
    return RealtimeError(code, message, source="connection")
