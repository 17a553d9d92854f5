"""The delay before a reconnection: exponential backoff with random delays."""

from __future__ import annotations

import random
from collections.abc import Callable

from ..wire.codes import CloseCode

# upper bound in seconds of the random delay after the first loss; each further loss doubles it
INITIAL_DELAY = 0.5
# upper bound in seconds after any number of losses
MAX_DELAY = 30.0
# seconds after which a connection counts as stable, so that its loss is a first one again
STABLE_AFTER = 10.0
# minimum in seconds if the server has closed the connection as unavailable
UNAVAILABLE_DELAY = 5.0
# highest exponent; 0.5 * 2**10 is far above MAX_DELAY
MAX_ATTEMPT = 10

# seconds after which a request is repeated that failed in the server's code, without the random
# part; each further failure doubles it
FIRST_REPETITION = 1.0
# the longest such delay
LONGEST_REPETITION = 64.0


class Repetition:
    """Counts how often the server's code failed for one request, and computes the next delay."""

    def __init__(self) -> None:
        # failures since the last success
        self._failures = 0

    def reset(self) -> None:
        """Begin again with the shortest delay, after a success."""
        self._failures = 0

    def next_delay(self, retry_after_ms: int | None) -> float:
        """Return the seconds to wait after a failure, not less than the server asked for."""
        delay = min(LONGEST_REPETITION, FIRST_REPETITION * 2.0**self._failures)
        self._failures = min(self._failures + 1, MAX_ATTEMPT)
        return max(delay * (1 + random.random()), (retry_after_ms or 0) / 1000)  # noqa: S311


class Backoff:
    """Counts lost connections and computes the delay before the next one."""

    def __init__(self, random: Callable[[], float] = random.random) -> None:
        # returns numbers from 0 to 1
        self._random = random
        # losses since the last stable connection
        self._attempt = 0

    def next_delay(
        self, code: int, retry_after_ms: int | None, connected_for: float
    ) -> float | None:
        """Return the seconds to wait after a close, or None if the client must not reconnect.

        ``code`` is the WebSocket close code, ``retry_after_ms`` the delay that the server asked
        for, if any, and ``connected_for`` the number of seconds for which the client was connected.
        """
        # a server that moves its clients to others is no failure, however often it happens
        is_moved = code == CloseCode.DRAINING and connected_for > 0
        if is_moved or connected_for > STABLE_AFTER:
            self._attempt = 0
        if 4500 <= code < 5000 and code != CloseCode.CONNECTION_LIMIT:
            return None
        requested = (retry_after_ms or 0) / 1000
        if code == CloseCode.DRAINING:
            # the server closes all its connections with this code at the same time; a random
            # part of the delay avoids that all clients reconnect at the same time
            required = self._random() * requested
        elif code == CloseCode.UNAVAILABLE:
            required = max(requested, UNAVAILABLE_DELAY)
        else:
            required = requested
        immediately = 4200 <= code < 4300 or code == CloseCode.TOKEN_EXPIRED
        limit = min(MAX_DELAY, INITIAL_DELAY * 2**self._attempt)
        jitter = 0.0 if immediately and self._attempt == 0 else self._random() * limit
        self._attempt = min(self._attempt + 1, MAX_ATTEMPT)
        return required + jitter
