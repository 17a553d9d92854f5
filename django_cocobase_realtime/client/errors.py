"""The client's exceptions and logger, and calls of the program's functions."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

logger = logging.getLogger("django_cocobase_realtime.client")


class RealtimeError(Exception):
    """A request was refused or could not be sent, or the client cannot connect."""

    def __init__(
        self,
        code: str | int,
        message: str,
        retry_after_ms: int | None = None,
        *,
        source: str = "server",
        subscription: str | None = None,
        room: str | None = None,
    ) -> None:
        super().__init__(message)
        # an error code of the protocol ("unknown_collection"), a WebSocket close code (4500), the
        # HTTP status of a refused handshake (401, 403, 404), or a code of this client: "closed" if
        # the connection was lost, the room left or the client closed, "not_connected" if a
        # connection could not be attempted, "not_refreshed" if no token was available when it had
        # to be renewed, "upgrade_required" if a proxy does not pass WebSockets on,
        # "user_changed" if the client came back as another user, "invalid_certificate" if TLS
        # failed, "listener_failed" if a function of the program failed
        self.code = code
        # milliseconds after which the request may succeed; None if it must not be repeated
        self.retry_after_ms = retry_after_ms
        # "server", "connection", "token" (the token function) or "listener" (another function of
        # the program)
        self.source = source
        # the name of the subscription that the error belongs to, as in frames
        self.subscription = subscription
        # the name of the room that the error belongs to
        self.room = room

    @classmethod
    def from_frame(cls, frame: Mapping[str, Any]) -> RealtimeError:
        """Return the exception for an ``error`` frame."""
        return cls(
            frame["code"],
            frame.get("message", ""),
            frame.get("retry_after_ms"),
            subscription=frame.get("subscription"),
            room=frame.get("room"),
        )

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the request may succeed; None if it must not be repeated."""
        return None if self.retry_after_ms is None else self.retry_after_ms / 1000

    @property
    def is_failure(self) -> bool:
        """Whether the server's code failed, so that the same request may succeed later."""
        return self.code == "internal_error"

    def __str__(self) -> str:
        return f"{self.args[0]} ({self.code})"


class InvalidRequest(RealtimeError, ValueError):
    """A value that the server would refuse, found before it is sent."""


def closed_error() -> RealtimeError:
    """Return the error of calls to a closed client."""
    return RealtimeError("closed", "The client was closed.", source="connection")


# called with errors that belong to no request
Report = Callable[[RealtimeError], None]

# tasks of asynchronous listeners; asyncio has only weak references to them
_listener_tasks: set[asyncio.Task[None]] = set()


def call_safely(report: Report, listener: Callable[..., Any], *values: Any) -> None:
    """Call a function of the program, which may be asynchronous; report an exception.

    A mistake in a listener must not end the connection, not even one that raises
    ``CancelledError`` or, outside of the main thread, where it does not end the program,
    ``SystemExit``.
    """
    result: Any = None
    try:
        result = listener(*values)
        if inspect.isawaitable(result):
            loop = asyncio.get_running_loop()
            task = loop.create_task(_await_safely(report, result))
            _listener_tasks.add(task)
            task.add_done_callback(_listener_tasks.discard)
    except (Exception, asyncio.CancelledError) as error:
        if inspect.iscoroutine(result):
            result.close()  # there is no event loop yet
        _report_listener(report, error)
    except SystemExit as error:
        _report_exit(report, error)


def log_error(error: RealtimeError) -> None:
    """Log an error; with the traceback if it is a mistake of the program."""
    is_mistake = error.source in ("listener", "token")
    logger.error("%s", error, exc_info=error.__cause__ if is_mistake else None)


async def _await_safely(report: Report, result: Awaitable[Any]) -> None:
    try:
        await result
    except Exception as error:
        _report_listener(report, error)
    except SystemExit as error:
        _report_exit(report, error)


def _report_exit(report: Report, error: SystemExit) -> None:
    if threading.current_thread() is threading.main_thread():
        raise error
    _report_listener(report, error)


def _report_listener(report: Report, error: BaseException) -> None:
    wrapped = RealtimeError("listener_failed", f"A listener failed: {error!r}", source="listener")
    wrapped.__cause__ = error
    report(wrapped)
