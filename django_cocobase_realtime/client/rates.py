"""The order and the rate of requests: none is sent before the server allows it."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable

from .interfaces import CallLater, Frame, OnReply

# share of the server's rate that the client uses, since requests that are sent at equal intervals
# arrive at less equal ones
RATE_SHARE = 0.95
# unanswered broadcasts if the server has sent no limits; it closes after ten refusals in a row
WINDOW = 8


class TokenBucket:
    """Computes when the next request may be sent, for a rate with bursts."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        # requests per second
        self._rate = rate * RATE_SHARE
        # requests that may be sent at once
        self._burst = burst
        # returns seconds
        self._clock = clock
        # requests that may be sent now
        self._tokens = burst
        # time for which that number was computed
        self._updated_at = clock()

    def delay(self) -> float:
        """Return the seconds until a request may be sent."""
        now = self._clock()
        # a clock that was set back must not lead to a long delay
        elapsed = max(0.0, now - self._updated_at)
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
        self._updated_at = now
        return max(0.0, (1 - self._tokens) / self._rate) if self._rate else 0.0

    def take(self) -> None:
        """Count a request that is sent."""
        self._tokens -= 1


class Request:
    """A request that is sent, or waits to be sent."""

    __slots__ = (
        "bucket",
        "cancelled",
        "frame",
        "is_sent",
        "limit",
        "number",
        "on_reply",
        "sent_frame",
        "was_sent",
    )

    def __init__(
        self,
        number: int,
        frame: Frame,
        on_reply: OnReply | None,
        limit: str,
        bucket: TokenBucket | None,
    ) -> None:
        # place in the order of requests
        self.number = number
        # the frame without an id; may be replaced for the next time that the request is sent
        self.frame = frame
        # the frame that was sent last
        self.sent_frame: Frame | None = None
        # called with the reply
        self.on_reply = on_reply
        # name of the limit that the request is counted by
        self.limit = limit
        # the rate of that limit; None if it is not known
        self.bucket = bucket
        # whether it is not to be sent any more
        self.cancelled = False
        # whether it was sent and not refused by the server's rate
        self.is_sent = False
        # whether it was sent, even if it was refused by rate
        self.was_sent = False

    def __lt__(self, other: Request) -> bool:
        return self.number < other.number

    def cancel(self) -> None:
        """Do not send the request, unless it was sent already."""
        self.cancelled = not self.is_sent


class Lane:
    """Requests that are sent in order. After a refusal by rate, the refused ones are sent again.

    A request that was sent after the refused one may be accepted, so that no more are sent until
    all are answered.
    """

    def __init__(
        self,
        transmit: Callable[[Request], None],
        call_later: CallLater,
        clock: Callable[[], float],
        window: int | None,
    ) -> None:
        # sends a request
        self._transmit = transmit
        # calls a function after a number of seconds
        self._call_later = call_later
        # returns seconds
        self._clock = clock
        # number of requests that may be unanswered; None for any number
        self._window = window
        # requests that wait, in their order
        self._waiting: deque[Request] = deque()
        # number of requests that are not answered
        self._unanswered = 0
        # refused requests, which wait until the others are answered
        self._refused: set[Request] = set()
        # times until which the server has asked to wait, by the name of the limit
        self._blocked_until: dict[str, float] = {}
        # whether a timer is running that continues
        self._has_timer = False
        # whether the connection was lost
        self._closed = False

    def push(self, request: Request) -> None:
        """Send a request, or let it wait for its turn."""
        self._waiting.append(request)
        self._advance()

    def handle_reply(self, request: Request, retry_after: float | None) -> None:
        """Continue after a reply. ``retry_after``: seconds, if the request was refused by rate."""
        self._unanswered -= 1
        if retry_after is not None:
            request.is_sent = False
            insort(self._waiting, request)
            self._refused.add(request)
            self._blocked_until[request.limit] = self._clock() + retry_after
        self._advance()

    def close(self) -> list[Request]:
        """Handle the loss of the connection; return the requests that were not sent."""
        self._closed = True
        waiting, self._waiting = self._waiting, deque()
        return [request for request in waiting if not request.cancelled]

    def _advance(self) -> None:
        while self._waiting and not self._closed:
            request = self._waiting[0]
            if request.cancelled:
                self._refused.discard(self._waiting.popleft())
                continue
            if self._refused and self._unanswered:
                return
            if self._window is not None and self._unanswered >= self._window:
                return
            delay = self._blocked_until.get(request.limit, 0.0) - self._clock()
            if request.bucket is not None:
                delay = max(delay, request.bucket.delay())
            if delay > 0:
                self._continue_after(delay)
                return
            # all are answered, so that those which follow come behind it
            self._refused.clear()
            self._waiting.popleft()
            if request.bucket is not None:
                request.bucket.take()
            request.is_sent = request.was_sent = True
            self._unanswered += 1
            self._transmit(request)

    def _continue_after(self, delay: float) -> None:
        if self._has_timer:
            return
        self._has_timer = True

        def advance() -> None:
            self._has_timer = False
            self._advance()

        self._call_later(delay, advance)
