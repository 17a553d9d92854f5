"""How long to wait before the next connection: exponential backoff with full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable

from ..wire.codes import CloseCode

# seconds: upper bound of the random delay after the first loss; each further loss doubles it
INITIAL_DELAY = 0.5
# seconds: the doubling stops here
MAX_DELAY = 30.0
# seconds that a connection must last before its loss counts as a first one again
STABLE_AFTER = 10.0
# seconds to wait at least when the server is unavailable
UNAVAILABLE_DELAY = 5.0
# losses after which the exponent stops growing; 0.5 * 2**10 is far above MAX_DELAY
MAX_ATTEMPT = 10


class Backoff:
    """Counts lost connections and computes the delay before the next one.

    ``random`` returns numbers from 0 to 1.
    """

    def __init__(self, random: Callable[[], float] = random.random) -> None:
        self._random = random
        self._attempt = 0

    def next_delay(
        self, code: int, retry_after_ms: int | None, connected_for: float
    ) -> float | None:
        """Return the seconds to wait after a close, or None if the client must not reconnect.

        ``code`` is the WebSocket close code, ``retry_after_ms`` the wait that the server asked
        for, and ``connected_for`` the number of seconds that the lost connection lasted.
        """
        if connected_for > STABLE_AFTER:
            self._attempt = 0
        if 4500 <= code < 5000:
            return None
        requested = (retry_after_ms or 0) / 1000
        if code == CloseCode.DRAINING:
            # all clients of the server get this code at once: spread them over the whole time
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
