"""What the client raises."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger("django_cocobase_realtime.client")

Reply = Mapping[str, Any]

CLOSED: Reply = {"type": "error", "code": "closed", "message": "The connection was lost."}
"""The answer to whatever was asked on a connection that is gone."""


class RealtimeError(Exception):
    """The server refused a request, or closed the connection for good.

    ``code`` is an error code of the protocol (``"unknown_collection"``), the number of a close
    code (4500), or one of the client's own: ``"closed"`` where the connection was lost or left,
    ``"not_connected"``, ``"not_refreshed"``. ``retry_after_ms`` is None where waiting is no help.
    """

    def __init__(self, code: str | int, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_ms = retry_after_ms

    @classmethod
    def of(cls, reply: Reply) -> RealtimeError:
        """From an ``error`` frame."""
        return cls(reply["code"], reply.get("message", ""), reply.get("retry_after_ms"))

    def __str__(self) -> str:
        return f"{self.args[0]} ({self.code})"


def guarded(listener: Callable[..., None], *values: Any) -> None:
    """Call a listener: its mistake is not the connection's."""
    try:
        listener(*values)
    except Exception:
        logger.exception("A listener failed.")


def check(value: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` for what JSON cannot say, before it is kept."""
    json.dumps(value)
