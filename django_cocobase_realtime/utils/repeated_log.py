"""Limits how often the same failure is logged, so that clients cannot fill the log with it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable
from typing import Any

# seconds within which the same failure is not logged again
LOG_INTERVAL = 60.0
# clients for which one kind of failure is logged within that time
MAX_CLIENTS = 10
# kinds of failures that are remembered
MAX_KINDS = 1000


class _Period:
    """The failures of one kind since one of them was logged."""

    __slots__ = ("clients", "omitted", "started_at")

    def __init__(self, now: float) -> None:
        # monotonic time
        self.started_at = now
        # clients for which the failure was logged
        self.clients: set[Hashable] = set()
        # number of failures that were not logged
        self.omitted = 0


class RepeatedLog:
    """Decides which failures are logged. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # by kind, the one that began last at the end
        self._periods: dict[Hashable, _Period] = {}

    def admit(self, kind: Hashable, client: Hashable = None) -> int | None:
        """Return None if a failure must not be logged now.

        Otherwise return how many failures of its kind were not logged since the last one was.
        ``client`` is the client for which it happened, or None.
        """
        now = time.monotonic()
        with self._lock:
            period, omitted = self._periods.get(kind), 0
            if period is None or now - period.started_at >= LOG_INTERVAL:
                omitted = 0 if period is None else period.omitted
                period = self._begin(kind, now)
            elif client in period.clients or len(period.clients) >= MAX_CLIENTS:
                period.omitted += 1
                return None
            period.clients.add(client)
            return omitted

    def clear(self) -> None:
        """Forget which failures were logged."""
        with self._lock:
            self._periods.clear()

    def _begin(self, kind: Hashable, now: float) -> _Period:
        self._periods.pop(kind, None)
        if len(self._periods) >= MAX_KINDS:
            del self._periods[next(iter(self._periods))]
        period = self._periods[kind] = _Period(now)
        return period


# the failures of this process
repeated_log = RepeatedLog()


def omitted_text(omitted: int) -> str:
    """Return a text for the end of a log message, which is empty if nothing was omitted."""
    return f" ({omitted} more of this kind were not logged)" if omitted else ""


def log_repeated(
    logger: logging.Logger,
    level: int,
    message: str,
    *args: Any,
    kind: Hashable = None,
    client: Hashable = None,
    exc_info: Any = None,
) -> None:
    """Log a failure that may happen again and again, with the number of those not logged.

    Failures with the same message and ``kind`` are the same. ``client`` is as for `admit`.
    """
    omitted = repeated_log.admit((message, kind), client)
    if omitted is not None:
        logger.log(level, message + "%s", *args, omitted_text(omitted), exc_info=exc_info)
