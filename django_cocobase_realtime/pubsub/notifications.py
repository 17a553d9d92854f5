"""Announcements of new events within one PostgreSQL database, by ``NOTIFY``.

After a commit, the process that saved executes one statement on the same connection. Server
processes receive it with ``LISTEN`` (`listener`). This needs no Redis, no thread and no event loop
in the process that saved.

The statement is a transaction of its own. A ``NOTIFY`` holds a lock of the whole database server
until its transaction has ended, so it must neither be in the transaction of the project, nor in the
one that numbers events. PostgreSQL does not wait for the disk to commit such a transaction, because
it has written nothing.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2s
from typing import Any

from django.db import connections

from ..utils.repeated_log import omitted_text, repeated_log

logger = logging.getLogger(__name__)

# prefix of the names of this app's channels; PostgreSQL allows 63 bytes
CHANNEL_PREFIX = "cocobase_realtime_"
# key of the advisory lock that one of the listening processes holds, for each database: "cocolist"
LISTENER_LOCK = 0x636F636F6C697374
# milliseconds that ``NOTIFY`` may wait until another transaction with a ``NOTIFY`` has ended
LOCK_TIMEOUT = 100
# seconds after which a connection is closed on which the statement is not answered
ANSWER_TIMEOUT = 1.0
# seconds until ``NOTIFY`` is tried again, if no process listens or after an error
RETRY_INTERVAL = 1.0

_IDLE = 0  # libpq's transaction status of a connection without a transaction
_TUPLES_OK = 2  # libpq's status of a result with rows

# monotonic time until which ``NOTIFY`` is not tried, because no process listens, by database
_unanswered_until: dict[str, float] = {}
# the same after an error
_failed_until: dict[str, float] = {}


@lru_cache(maxsize=4096)
def channel_name(stream: str) -> str:
    """Return the name of the channel on which new events of a stream are announced."""
    return CHANNEL_PREFIX + blake2s(stream.encode(), digest_size=16).hexdigest()


def notify_listeners(
    using: str, streams: Mapping[str, str], is_alone: Callable[[], bool] = lambda: False
) -> bool:
    """Announce new events of streams by ``NOTIFY``; return whether a server process listens.

    The values of ``streams`` are payloads, in hexadecimal. Never raises an exception. Returns False
    without a statement inside a transaction, after an error, and for a second after no process has
    listened, unless the channel layer ``is_alone``: it does not reach other processes.
    """
    connection: Any = connections[using]
    if connection.vendor != "postgresql":
        return False
    now = time.monotonic()
    if now < _failed_until.get(using, 0.0) or (
        now < _unanswered_until.get(using, 0.0) and not is_alone()
    ):
        return False
    driver = connection.connection
    pgconn, lock = getattr(driver, "pgconn", None), getattr(driver, "lock", None)
    if pgconn is None or lock is None:
        return False  # psycopg 2, or closed by another function that was called on commit
    if pgconn.transaction_status != _IDLE:
        return False  # in a transaction, for example that of a test case
    if not lock.acquire(blocking=False):
        return False  # another thread uses the connection
    try:
        is_received = _notify(pgconn, streams)
    except Exception as error:
        _failed_until[using] = now + RETRY_INTERVAL
        omitted = repeated_log.admit(("NOTIFY", using))
        if omitted is not None:
            text = omitted_text(omitted)
            logger.warning("NOTIFY failed in database %r: %r%s", using, error, text)
        if isinstance(error, TimeoutError):
            # the statement may still be executed, so the connection can execute no other one
            connection.close()
        return False
    finally:
        lock.release()
    _unanswered_until[using] = 0.0 if is_received else now + RETRY_INTERVAL
    return is_received


def _notify(pgconn: Any, streams: Mapping[str, str]) -> bool:
    result = _execute(pgconn, _statements(tuple(streams.items())))[-1]
    if result.status != _TUPLES_OK:
        raise ConnectionError((result.error_message or b"").decode(errors="replace").strip())
    return bool(result.get_value(0, 0) == b"f")


@lru_cache(maxsize=4096)
def _statements(streams: tuple[tuple[str, str], ...]) -> bytes:
    """Return statements that announce new events, and then look whether a process listens."""
    statements = [f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}"]
    statements += [f"NOTIFY \"{channel_name(stream)}\", '{payload}'" for stream, payload in streams]
    # the lock is not available while a process listens; the transaction's end releases it
    statements.append(f"SELECT pg_catalog.pg_try_advisory_xact_lock_shared({LISTENER_LOCK})")
    return ";".join(statements).encode()


def _execute(pgconn: Any, statements: bytes) -> list[Any]:
    """Execute statements without psycopg, which cannot limit the time; return their results.

    Raises ``TimeoutError`` if they are not answered within `ANSWER_TIMEOUT`.
    """
    deadline = time.monotonic() + ANSWER_TIMEOUT
    results: list[Any] = []
    pgconn.send_query(statements)
    pgconn.flush()
    while True:
        while pgconn.is_busy():
            if not _wait_readable(pgconn.socket, max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"There was no answer within {ANSWER_TIMEOUT} seconds.")
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            return results
        results.append(result)


def _wait_readable(number: int, seconds: float) -> bool:
    """Wait until a socket is readable; return whether it is."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([number], [], [], seconds)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
