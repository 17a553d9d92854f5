"""Rate limits and connection counters, so that one client cannot use up what all need.

All of them are per process.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from enum import IntEnum

from ..conf import Rate


class TokenBucket:
    """A rate limit: (tokens per second, burst). Each request takes one token.

    Times are seconds of a monotonic clock. Not thread-safe.
    """

    __slots__ = ("_burst", "_per_second", "_tokens", "_updated_at")

    def __init__(self, rate: Rate, now: float | None = None) -> None:
        self._per_second, self._burst = rate
        self._tokens = float(self._burst)
        self._updated_at = time.monotonic() if now is None else now

    def acquire(self, now: float) -> int:
        """Take a token and return 0, or return the milliseconds until there will be one."""
        new_tokens = (now - self._updated_at) * self._per_second
        self._tokens = min(self._burst, self._tokens + new_tokens)
        self._updated_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return max(1, int((1 - self._tokens) / self._per_second * 1000) + 1)


class PerMinute:
    """Counts events of the last sixty seconds, up to a bound."""

    __slots__ = ("_bound", "_times")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._times: list[float] = []

    def exceeded(self, now: float) -> bool:
        """Count an event. Return whether there were more than the bound in the last minute."""
        # keep no more times than are needed to exceed the bound
        recent = [time for time in self._times if now - time < 60]
        self._times = [*recent[-self._bound :], now] if self._bound else [now]
        return len(self._times) > self._bound


class CounterKey(IntEnum):
    """What a counter of connections belongs to."""

    ADDRESS = 1
    UNAUTHENTICATED = 2
    USER = 3


class ConnectionCounters:
    """Counts the live connections of this process, in total and by `CounterKey`."""

    def __init__(self) -> None:
        self.total = 0
        self._counts: dict[tuple[CounterKey, Hashable], int] = {}

    def count(self, counter: CounterKey, key: Hashable) -> int:
        """Return the number of connections of an address, for example."""
        return self._counts.get((counter, key), 0)

    def increment(self, counter: CounterKey, key: Hashable) -> None:
        """Count a connection."""
        self._counts[counter, key] = self._counts.get((counter, key), 0) + 1

    def decrement(self, counter: CounterKey, key: Hashable) -> None:
        """Stop counting a connection. A key without connections takes no memory."""
        count = self._counts.pop((counter, key), 0) - 1
        if count > 0:
            self._counts[counter, key] = count


connection_counters = ConnectionCounters()
