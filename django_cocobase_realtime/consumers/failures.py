"""Log lines about failures of a connection, which name its id."""

from __future__ import annotations

import logging
from typing import Any

from ..transport.connection import Connection
from ..utils.repeated_log import log_repeated

logger = logging.getLogger(__name__)


def log_unavailable(connection: Connection, error: Exception) -> None:
    """Log that a request could not be handled, because the database does not answer."""
    cause = error.__cause__ or error
    _log(logging.WARNING, connection, "Connection %s: the database is unavailable: %r", cause)


def log_failed_request(connection: Connection) -> None:
    """Log the exception that is being handled, which a request has raised."""
    _log(logging.ERROR, connection, "Connection %s: a request failed.", exc_info=True)


def log_failed_send(connection: Connection, error: Exception) -> None:
    """Log that a frame could not be sent although the socket is open."""
    _log(logging.WARNING, connection, "Connection %s: a frame could not be sent: %r", error)


def _log(level: int, connection: Connection, text: str, *args: Any, exc_info: bool = False) -> None:
    id = connection.id
    log_repeated(logger, level, text, id, *args, client=id, exc_info=exc_info)
