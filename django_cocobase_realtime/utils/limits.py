"""Rate limits and connection counters, which keep single clients from overloading the server.

Each process counts for itself.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Hashable
from enum import IntEnum

from ..options import Limits, Rate

# keys of a `KeyedRate` that are remembered
MAX_KEYS = 10_000
# answers to an address that may be delayed at the same time
MAX_DELAYED_PER_ADDRESS = 10


class TokenBucket:
    """A rate limit of requests per second, with a burst of requests that may come at once.

    Each request takes a token; tokens are added at the rate, up to the burst. Times are seconds of
    a monotonic clock. Not thread-safe.
    """

    __slots__ = ("_burst", "_per_second", "_tokens", "_updated_at")

    def __init__(self, rate: Rate, now: float | None = None) -> None:
        self._per_second, self._burst = rate
        self._tokens = float(self._burst)
        self._updated_at = time.monotonic() if now is None else now

    def acquire(self, now: float) -> int:
        """Take a token and return 0; if there is none, return the milliseconds until the next."""
        new_tokens = (now - self._updated_at) * self._per_second
        self._tokens = min(self._burst, self._tokens + new_tokens)
        self._updated_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return max(1, int((1 - self._tokens) / self._per_second * 1000) + 1)


class KeyedRate:
    """A rate limit for each key, for example for each address. Thread-safe."""

    def __init__(self) -> None:
        # the key that was used last is at the end
        self._buckets: OrderedDict[Hashable, tuple[Rate, TokenBucket]] = OrderedDict()
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all keys."""
        with self._lock:
            self._buckets.clear()

    def acquire(self, key: Hashable, rate: Rate, now: float) -> int:
        """Take a token of a key, as `TokenBucket.acquire` does."""
        with self._lock:
            used = self._buckets.pop(key, None)
            bucket = used[1] if used is not None and used[0] == rate else TokenBucket(rate, now)
            self._buckets[key] = (rate, bucket)
            if len(self._buckets) > MAX_KEYS:
                self._buckets.popitem(last=False)
            return bucket.acquire(now)


class DelayedAnswers:
    """Delays answers to addresses that send too much, a bounded number of each at a time."""

    def __init__(self) -> None:
        # number of answers that are being delayed, by address
        self._counts: Counter[str] = Counter()

    def are_many(self, address: str) -> bool:
        """Return whether as many answers to an address are being delayed as may be."""
        return self._counts[address] >= MAX_DELAYED_PER_ADDRESS

    async def wait(self, address: str, seconds: float) -> None:
        """Delay an answer to an address. No thread is occupied during that time."""
        self._counts[address] += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]


class PerMinute:
    """A limit of events within sixty seconds. Times are seconds of a monotonic clock."""

    __slots__ = ("_bound", "_times")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._times: list[float] = []

    def exceeded(self, now: float) -> bool:
        """Count an event, and return whether more than the bound happened in the last minute."""
        # more times than are needed to exceed the bound are not kept
        recent = [time for time in self._times if now - time < 60]
        self._times = [*recent[-self._bound :], now] if self._bound else [now]
        return len(self._times) > self._bound


class CounterKey(IntEnum):
    """The kinds of connection counters."""

    # connections of an IP address
    ADDRESS = 1
    # connections of an IP address that are not authenticated yet
    UNAUTHENTICATED = 2
    # connections of a user
    USER = 3


class ConnectionCounters:
    """Counts the open connections of this process, in total and by `CounterKey`."""

    def __init__(self) -> None:
        # number of connections, which is maintained by their consumers
        self.total = 0
        # connections by kind of counter and, for example, address; keys without any are removed
        self._counts: dict[tuple[CounterKey, Hashable], int] = {}

    def count(self, counter: CounterKey, key: Hashable) -> int:
        """Return the number of connections of a key, which is an address or a user."""
        return self._counts.get((counter, key), 0)

    def increment(self, counter: CounterKey, key: Hashable) -> None:
        """Add one connection to the count of a key."""
        self._counts[counter, key] = self._counts.get((counter, key), 0) + 1

    def decrement(self, counter: CounterKey, key: Hashable) -> None:
        """Subtract one connection from the count of a key."""
        count = self._counts.pop((counter, key), 0) - 1
        if count > 0:
            self._counts[counter, key] = count


# the counters of this process
connection_counters = ConnectionCounters()


class ConnectionCount:
    """The counters of this process that include one connection."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        # None while the connection is not counted
        self._keys: list[tuple[CounterKey, Hashable]] | None = None

    @property
    def is_counted(self) -> bool:
        """Whether `open` has counted the connection."""
        return self._keys is not None

    def open(self, address: str, limits: Limits) -> bool:
        """Count a connection that is not authenticated yet.

        Returns False, without counting it, if the process or the address has too many.
        """
        counters = connection_counters
        if (
            counters.total >= limits.connections_per_process
            or counters.count(CounterKey.ADDRESS, address) >= limits.connections_per_address
            or counters.count(CounterKey.UNAUTHENTICATED, address)
            >= limits.unauthenticated_per_address
        ):
            return False
        counters.total += 1
        self._keys = []
        self.add(CounterKey.ADDRESS, address)
        self.add(CounterKey.UNAUTHENTICATED, address)
        return True

    def add(self, counter: CounterKey, key: Hashable) -> None:
        """Count the connection for a key as well."""
        if self._keys is not None:
            connection_counters.increment(counter, key)
            self._keys.append((counter, key))

    def remove(self, counter: CounterKey, key: Hashable) -> None:
        """Count the connection no longer for a key, if it is."""
        if self._keys is not None and (counter, key) in self._keys:
            self._keys.remove((counter, key))
            connection_counters.decrement(counter, key)

    def keep_address(self) -> None:
        """Count the connection for the process and its address only.

        Its user, or a client that is not authenticated yet, may open another one.
        """
        for counter, key in list(self._keys or ()):
            if counter is not CounterKey.ADDRESS:
                self.remove(counter, key)

    def close(self) -> None:
        """Remove the connection from all counters."""
        if self._keys is None:
            return
        connection_counters.total -= 1
        for counter, key in self._keys:
            connection_counters.decrement(counter, key)
        self._keys = None
