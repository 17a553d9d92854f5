"""Failed authentications: slow down who fails often, remember what was wrong a moment ago."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict, deque

from ..conf import Limits, conf

WINDOW_SECONDS = 60.0  # seconds
THROTTLE_DELAY = 1.0  # seconds by which an address over its limit is answered later
MAX_ADDRESSES = 10_000
MAX_CREDENTIALS = 10_000


class AuthThrottle:
    """Per process. An address over its limit is answered late, not refused: others may share it.

    Wrong credentials are remembered for a minute, as keyed hashes, and refused without a look at
    the database. Times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._bad_credentials: OrderedDict[bytes, float] = OrderedDict()
        self._key = secrets.token_bytes(32)

    def delay(self, address: str, now: float, limits: Limits | None = None) -> float:
        """Seconds to wait before the next attempt of this address is looked at."""
        times = self._failures.get(address)
        if times is None:
            return 0.0
        while times and now - times[0] >= WINDOW_SECONDS:
            times.popleft()
        most = (limits or conf.limits).failed_auths_per_minute
        return THROTTLE_DELAY if len(times) >= most else 0.0

    def is_known_bad(self, token: str, now: float) -> bool:
        """Whether this very credential was wrong within the last minute."""
        at = self._bad_credentials.get(self._digest(token))
        return at is not None and now - at < WINDOW_SECONDS

    def record_failure(self, address: str, token: str | None, now: float) -> None:
        """A credential did not hold."""
        times = self._failures.pop(address, None) or deque(maxlen=1000)
        times.append(now)
        self._failures[address] = times
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        if token is not None:
            self._bad_credentials[self._digest(token)] = now
            if len(self._bad_credentials) > MAX_CREDENTIALS:
                self._bad_credentials.popitem(last=False)

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(
            token.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16
        ).digest()


auth_throttle = AuthThrottle()
