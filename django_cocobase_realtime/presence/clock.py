"""The database's clock, by which leases are measured: those of the servers may differ."""

from __future__ import annotations

import time

from django.db import connections

AGAIN = 60.0  # seconds after which the difference is measured again


class DatabaseClock:
    """Asks a database for the time once a minute, and its own process's clock in between."""

    def __init__(self) -> None:
        self._ahead: dict[str, tuple[float, float]] = {}

    def now(self, using: str) -> float:
        """Seconds since 1970 by the clock of the database ``using``."""
        own = time.time()
        if connections[using].vendor != "postgresql":
            return own
        ahead, read_at = self._ahead.get(using, (0.0, 0.0))
        if not 0 <= own - read_at < AGAIN:
            with connections[using].cursor() as cursor:
                cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
                (theirs,) = cursor.fetchone()
            ahead = theirs - own
            self._ahead[using] = ahead, own
        return own + ahead
