"""Counts of what this process has done since it started, which ``GET metrics`` shows.

Any module may increment them. They are plain integers and lists of integers, without a lock: in
CPython with its global lock, an increment of one attribute is not interrupted. Without that lock,
threads that count at the same time may lose a few.

Nothing here refers to other modules. Open connections and other things that exist are
counted when the metrics are read, see `hub.measures`.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

# upper bounds of the buckets of durations, in seconds
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """How many values were observed, by size."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        # upper bounds of the buckets, which include them; the last bucket has none
        self.bounds = bounds
        # number of values in each bucket
        self.counts = [0] * (len(bounds) + 1)
        # sum of all values
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts)

    def clear(self) -> None:
        """Forget all values."""
        self.counts[:] = [0] * len(self.counts)
        self.sum = 0.0


class Metrics:
    """The counts of a process. Use the instance ``metrics`` of this module."""

    __slots__ = (
        "captured",
        "closes",
        "commit_to_socket",
        "connections_opened",
        "delivered",
        "filtered",
        "layer_failures",
        "numbered",
        "refusals",
        "replayed",
        "resumes",
        "window_reads",
        "worker_waits",
    )

    def __init__(self) -> None:
        # events that the ORM's writes have recorded; those of triggers are seen when numbered
        self.captured = 0
        # events that this process has numbered
        self.numbered = 0
        # events that were sent to a live subscription, and those that it must not get
        self.delivered = 0
        self.filtered = 0
        # events that were sent to a subscription from the log, because it had missed them
        self.replayed = 0
        # connections that were authenticated
        self.connections_opened = 0
        # seconds from the time of an event until it was sent to all sockets of this process
        self.commit_to_socket = Histogram()
        # by what the client resumes ("subscription", "room"), and by "resumed" or the reason
        self.resumes: Counter[tuple[str, str]] = Counter()
        # connections that ended: by the close code of the server, or None if the client closed
        self.closes: Counter[int | None] = Counter()
        # requests that were answered with an error, and subscriptions that ended, by error code
        self.refusals: Counter[str] = Counter()
        # calls of the channel layer that failed: "send", "receive" or "join"
        self.layer_failures: Counter[str] = Counter()
        # reads of rows for windows: "all", or "refill" for those behind the known ones
        self.window_reads: Counter[str] = Counter()
        # seconds that calls have waited for a worker thread, by name of the pool
        self.worker_waits: dict[str, Histogram] = {}

    def clear(self) -> None:
        """Set all counts to zero."""
        self.captured = self.numbered = self.delivered = self.filtered = 0
        self.replayed = self.connections_opened = 0
        for counter in (self.resumes, self.closes, self.refusals, self.layer_failures):
            counter.clear()
        self.window_reads.clear()
        for histogram in (self.commit_to_socket, *self.worker_waits.values()):
            histogram.clear()

    def observe_delivery(self, at: str) -> None:
        """Count the seconds since the time of an event, which was sent now.

        ``at`` is in the ISO 8601 format. If the clock of the server that wrote it is ahead of that
        of this process, they count as zero.
        """
        seconds = time.time() - datetime.fromisoformat(at).timestamp()
        self.commit_to_socket.observe(max(seconds, 0.0))


# the counts of this process
metrics = Metrics()
# a process that was forked begins with zero
os.register_at_fork(after_in_child=metrics.clear)
