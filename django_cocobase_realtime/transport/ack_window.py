"""The ack window, which limits the events that a client has not acknowledged."""

from __future__ import annotations

from collections import deque


class AckWindow:
    """The events that a client has not acknowledged yet, of which it may have a limited number.

    By acks the server notices a slow client even if the frames wait in buffers of the network.
    """

    __slots__ = ("_in_flight", "limit")

    def __init__(self, limit: int) -> None:
        # number of events that may be unacknowledged
        self.limit = limit
        # cursors of the unacknowledged events, oldest first
        self._in_flight: deque[str] = deque()

    def record_sent(self, cursor: str) -> bool:
        """Add a sent event; return True if more than ``limit`` are now unacknowledged."""
        self._in_flight.append(cursor)
        return len(self._in_flight) > self.limit

    def ack(self, cursor: str) -> None:
        """Acknowledge all events up to ``cursor``; ignore the cursor of any other event."""
        if cursor in self._in_flight:
            while self._in_flight.popleft() != cursor:
                pass
