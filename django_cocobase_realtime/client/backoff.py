"""When to come back after a loss: full jitter, within what the server asks for."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ..wire.codes import CloseCode

FIRST = 0.5  # seconds: the longest delay after a first loss; doubled each time
LONGEST = 30.0
SETTLED = 10.0  # seconds a connection must hold before its loss counts as a first one
UNAVAILABLE = 5.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds to wait; ``hold`` of them were asked for by the server, and no waking ends them."""

    delay: float
    hold: float


class Backoff:
    """Counts losses. ``random`` gives numbers between 0 and 1."""

    def __init__(self, random: Callable[[], float] = random.random) -> None:
        self._random = random
        self._attempt = 0

    def after(self, code: int, retry_after_ms: int | None, lived: float) -> Pause | None:
        """What to do after a close with ``code`` of a connection that held ``lived`` seconds.

        None where the code says that coming back is no use.
        """
        if lived > SETTLED:
            self._attempt = 0
        if 4500 <= code < 5000:
            return None
        asked = (retry_after_ms or 0) / 1000
        if code == CloseCode.DRAINING:
            hold = self._random() * asked
        elif code == CloseCode.UNAVAILABLE:
            hold = max(asked, UNAVAILABLE)
        else:
            hold = asked
        at_once = 4200 <= code < 4300 or code == CloseCode.TOKEN_EXPIRED
        most = min(LONGEST, FIRST * 2**self._attempt)
        jitter = 0.0 if at_once and self._attempt == 0 else self._random() * most
        self._attempt = min(self._attempt + 1, 10)
        return Pause(hold + jitter, hold)
