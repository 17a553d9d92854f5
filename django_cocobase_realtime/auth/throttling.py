"""Failed authentications: slow down who fails often, remember what was wrong a moment ago."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict, deque

from ..conf import Limits, conf

WINDOW = 60.0  # seconds
LATE = 1.0  # seconds by which an address over its limit is answered later
ADDRESSES = 10_000
CREDENTIALS = 10_000


class FailedAuths:
    """Per process. An address over its limit is answered late, not refused: others may share it.

    Wrong credentials are remembered for a minute, as keyed hashes, and refused without a look at
    the database. Times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._wrong: OrderedDict[bytes, float] = OrderedDict()
        self._key = secrets.token_bytes(32)

    def delay(self, address: str, now: float, limits: Limits | None = None) -> float:
        """Seconds to wait before the next attempt of this address is looked at."""
        times = self._failures.get(address)
        if times is None:
            return 0.0
        while times and now - times[0] >= WINDOW:
            times.popleft()
        most = (limits or conf.limits).failed_auths_per_minute
        return LATE if len(times) >= most else 0.0

    def refused_before(self, token: str, now: float) -> bool:
        """Whether this very credential was wrong within the last minute."""
        at = self._wrong.get(self._digest(token))
        return at is not None and now - at < WINDOW

    def record(self, address: str, token: str | None, now: float) -> None:
        """A credential did not hold."""
        times = self._failures.pop(address, None) or deque(maxlen=1000)
        times.append(now)
        self._failures[address] = times
        if len(self._failures) > ADDRESSES:
            self._failures.popitem(last=False)
        if token is not None:
            self._wrong[self._digest(token)] = now
            if len(self._wrong) > CREDENTIALS:
                self._wrong.popitem(last=False)

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(
            token.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16
        ).digest()


failures = FailedAuths()
