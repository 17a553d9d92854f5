"""The client's exception and logger, and helpers that catch mistakes of the program."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger("django_cocobase_realtime.client")


class RealtimeError(Exception):
    """The server refused a request, or closed the connection and does not allow a new one."""

    def __init__(self, code: str | int, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        # an error code of the protocol ("unknown_collection"), a WebSocket close code (4500), or
        # a code of this client: "closed" if the connection was lost or the room left,
        # "not_connected" if connecting could not be attempted, for example because the token
        # function failed, "not_refreshed" if it failed when the token had to be renewed,
        # "upgrade_required" if a proxy in front of the server does not pass WebSockets on
        self.code = code
        # milliseconds after which the request may succeed; None if it must not be repeated
        self.retry_after_ms = retry_after_ms

    @classmethod
    def from_frame(cls, frame: Mapping[str, Any]) -> RealtimeError:
        """Return the exception for an ``error`` frame."""
        return cls(frame["code"], frame.get("message", ""), frame.get("retry_after_ms"))

    @property
    def is_failure(self) -> bool:
        """Whether the server's code failed, so that the same request may succeed later."""
        return self.code == "internal_error"

    def __str__(self) -> str:
        return f"{self.args[0]} ({self.code})"


def call_safely(listener: Callable[..., None], *values: Any) -> None:
    """Call a function of the program, and log an exception instead of raising it.

    A mistake in a listener must not end the connection.
    """
    try:
        listener(*values)
    except Exception:
        logger.exception("A listener failed.")


def ensure_json(value: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` if a value cannot be serialized as JSON.

    Called before a value becomes part of a frame. Otherwise the exception would be raised in the
    task that sends all frames, and end it.
    """
    json.dumps(value)
