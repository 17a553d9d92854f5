"""The client's exception, its logger, and the handling of errors in the program's code."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger("django_cocobase_realtime.client")


class RealtimeError(Exception):
    """The server refused a request, or closed the connection for good.

    ``code`` is an error code of the protocol (``"unknown_collection"``), a WebSocket close code
    (4500), or one of the client's own codes: ``"closed"`` if the connection was lost or the room
    left, ``"not_connected"`` if no connection could be attempted, ``"not_refreshed"`` if the
    token function failed while the old token was still valid.

    ``retry_after_ms`` is the number of milliseconds after which the request may succeed, or None
    if repeating it is useless.
    """

    def __init__(self, code: str | int, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_ms = retry_after_ms

    @classmethod
    def from_frame(cls, frame: Mapping[str, Any]) -> RealtimeError:
        """Return the exception for an ``error`` frame."""
        return cls(frame["code"], frame.get("message", ""), frame.get("retry_after_ms"))

    def __str__(self) -> str:
        return f"{self.args[0]} ({self.code})"


def call_safely(listener: Callable[..., None], *values: Any) -> None:
    """Call a function of the program, and log its exception instead of raising it.

    An error in a listener must not end the connection.
    """
    try:
        listener(*values)
    except Exception:
        logger.exception("A listener failed.")


def ensure_json(value: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` if a value cannot be serialized as JSON.

    Called before a value is stored: a frame that fails only when it is sent would end the task
    that sends all frames.
    """
    json.dumps(value)
