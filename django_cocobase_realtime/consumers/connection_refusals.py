"""How long users with too many connections must wait, which grows with each refusal."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

# milliseconds to wait after the first refusal; each further one doubles it
FIRST_DELAY_MS = 5000
# longest time to wait in milliseconds
LONGEST_DELAY_MS = 120_000
# users that are remembered
MAX_USERS = 10_000


class ConnectionRefusals:
    """Counts the refused connections of users of this process.

    Times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        # number of refusals and time of the last one, by user; who was refused last is at the end
        self._refusals: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def next_delay_ms(self, user: Hashable, now: float) -> int:
        """Count a refusal, and return after how many milliseconds the client may try again."""
        count, refused_at = self._refusals.pop(user, (0, now))
        if now - refused_at > 2 * LONGEST_DELAY_MS / 1000:
            count = 0
        delay = min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** min(count, 10))
        self._refusals[user] = (count + 1, now)
        if len(self._refusals) > MAX_USERS:
            self._refusals.popitem(last=False)
        return int(delay)

    def forget(self, user: Hashable) -> None:
        """Begin again with the first delay, because a connection of the user was accepted."""
        self._refusals.pop(user, None)


# the counts of this process
connection_refusals = ConnectionRefusals()
