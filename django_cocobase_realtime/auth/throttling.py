"""Authentication with protection against guessing credentials.

Addresses with many failures are answered late, and credentials that failed are remembered.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Hashable

from ..conf import conf
from ..identity import Identity
from ..options import Limits
from ..types import Scope
from ..utils.concurrency import run_authentication, run_authentications
from ..utils.fair_queue import Owner
from ..utils.limits import DelayedAnswers
from ..utils.project_code import ProjectCodeFailed
from .backends import AuthenticationPostponed, MustBeAlone, NotYetValid, authenticate
from .together import authenticate_many, may_be_together

WINDOW_SECONDS = 60.0  # for which a failure counts
THROTTLE_DELAY = 1.0  # seconds by which an answer to an address over its limit is delayed
MAX_ADDRESSES = 10_000  # that are remembered
MAX_CREDENTIALS = 10_000  # that are remembered
MAX_FAILURES_PER_ADDRESS = 1000  # whose times are remembered


class AuthThrottle:
    """Counts the failed authentications of this process.

    Answers to an address over its limit are delayed. They are not refused, because several
    clients may share the address. Wrong credentials are refused for a minute without a query. All
    times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        # times of failures by address; the address that failed last is at the end
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        # time of the failure by the keyed hash of a credential
        self._bad_credentials: OrderedDict[bytes, float] = OrderedDict()
        self._hash_key = secrets.token_bytes(32)
        # answers that are being delayed
        self.delayed = DelayedAnswers()

    def delay(self, address: str, now: float, limits: Limits | None = None) -> float:
        """Return for how many seconds the answer to an address must be delayed now."""
        times = self._failures.get(address)
        if times is None:
            return 0.0
        while times and now - times[0] >= WINDOW_SECONDS:
            times.popleft()
        limit = (limits or conf.limits).failed_auths_per_minute
        return THROTTLE_DELAY if len(times) >= limit else 0.0

    def is_known_bad(self, token: str, now: float) -> bool:
        """Return whether the same token failed within the last minute."""
        failed_at = self._bad_credentials.get(self._hash(token))
        return failed_at is not None and now - failed_at < WINDOW_SECONDS

    def record_failure(self, address: str, token: str | None, now: float) -> None:
        """Remember a failed authentication, for the address and for the token."""
        times = self._failures.pop(address, None) or deque(maxlen=MAX_FAILURES_PER_ADDRESS)
        times.append(now)
        self._failures[address] = times
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        if token is not None:
            self._bad_credentials[self._hash(token)] = now
            if len(self._bad_credentials) > MAX_CREDENTIALS:
                self._bad_credentials.popitem(last=False)

    def _hash(self, token: str) -> bytes:
        return hashlib.blake2b(
            token.encode("utf-8", "surrogatepass"), key=self._hash_key, digest_size=16
        ).digest()


# the counts of this process
auth_throttle = AuthThrottle()


async def authenticate_throttled(
    token: str | None, scope: Scope, address: str, connection: Hashable = None
) -> Identity | None:
    """Return the identity that a token proves, or None.

    If authentication from ``address`` failed often, wait first, whatever the result.

    ``scope`` is the ASGI scope of the handshake or request; ``connection`` is the id of the
    connection, or None for HTTP. Raises ``AuthenticationUnavailable`` if the token could not be
    validated, and `ProjectCodeFailed` if an authenticator failed.
    """
    now = time.monotonic()
    delay = auth_throttle.delay(address, now)
    if delay:
        await auth_throttle.delayed.wait(address, delay)
    if token is not None and auth_throttle.is_known_bad(token, now):
        return None
    try:
        identity = await _authenticate(Owner(address, connection), token, scope)
    except NotYetValid:
        auth_throttle.record_failure(address, None, now)
        return None
    except (AuthenticationPostponed, ProjectCodeFailed):
        # counted for the address, since clients may be able to cause it; the token may be valid
        auth_throttle.record_failure(address, None, now)
        raise
    if identity is None:
        auth_throttle.record_failure(address, token, now)
    return identity


async def _authenticate(owner: Owner, token: str | None, scope: Scope) -> Identity | None:
    if may_be_together():
        try:
            identity: Identity | None = await run_authentications(
                owner, authenticate_many, (token, scope)
            )
            return identity
        except MustBeAlone:
            pass
    return await run_authentication(owner, authenticate, token, scope)
