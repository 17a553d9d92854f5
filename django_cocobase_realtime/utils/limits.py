"""Counters that keep one client from taking what belongs to all: rates and caps.

Everything is in this process: caps on connections are per process.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from enum import IntEnum

from ..conf import Rate


class TokenBucket:
    """``rate`` (tokens a second, burst): each ``take`` costs one token. Not thread-safe."""

    __slots__ = ("_at", "_burst", "_per_second", "_tokens")

    def __init__(self, rate: Rate, now: float | None = None) -> None:
        self._per_second, self._burst = rate
        self._tokens = float(self._burst)
        self._at = time.monotonic() if now is None else now

    def acquire(self, now: float) -> int:
        """0 where a token was there, else milliseconds until one will be."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return max(1, int((1 - self._tokens) / self._per_second * 1000) + 1)


class PerMinute:
    """Counts what happened in the last sixty seconds, up to a bound."""

    __slots__ = ("_bound", "_times")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._times: list[float] = []

    def exceeded(self, now: float) -> bool:
        """Count one more; True where that is more than the bound within a minute."""
        # of a bounded number at most: more than that is told apart by nothing
        recent = [time for time in self._times if now - time < 60]
        self._times = [*recent[-self._bound :], now] if self._bound else [now]
        return len(self._times) > self._bound


class CounterKey(IntEnum):
    """What is counted for each of its keys."""

    ADDRESS = 1
    UNAUTHENTICATED = 2
    USER = 3


class ConnectionCounters:
    """Live connections of this process: all, by address, by user, and those not yet known."""

    def __init__(self) -> None:
        self.total = 0
        self._counts: dict[tuple[CounterKey, Hashable], int] = {}

    def count(self, cap: CounterKey, key: Hashable) -> int:
        """How many there are."""
        return self._counts.get((cap, key), 0)

    def increment(self, cap: CounterKey, key: Hashable) -> None:
        """One more."""
        self._counts[cap, key] = self._counts.get((cap, key), 0) + 1

    def decrement(self, cap: CounterKey, key: Hashable) -> None:
        """One less; names nobody holds are forgotten."""
        left = self._counts.pop((cap, key), 0) - 1
        if left > 0:
            self._counts[cap, key] = left


connection_counters = ConnectionCounters()
