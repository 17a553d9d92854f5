"""The groups of the channel layer that this process has joined.

Users of a group are counted, and it is left after the last one. Memberships are renewed
regularly, because a Redis that was restarted or emptied has forgotten them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from weakref import WeakValueDictionary

from ..metrics import metrics
from .broker import broker
from .layer import LayerChannel

logger = logging.getLogger(__name__)

# seconds between two sweeps, which leave groups, join them again and renew memberships
SWEEP_INTERVAL = 1.0
# seconds after which a membership is renewed
RENEW_INTERVAL = 30.0
# seconds to wait until a group is joined whose events come through the layer only
JOIN_TIMEOUT = 5.0
# seconds to wait until a group is joined whose events are also in the log
JOIN_TIMEOUT_DURABLE = 0.5
# seconds before receiving is tried again after an exception: the first delay, and the longest
RETRY_DELAYS = (0.1, 2.0)


class GroupMemberships:
    """Joins and leaves groups, and receives their messages. Each hub has one.

    All groups share one channel of the layer. Calls of the layer for one group do not overlap,
    because they could use different connections to Redis and be executed in the wrong order.
    """

    def __init__(self, on_payload: Callable[[bytes], None]) -> None:
        # called with each encoded event, in the order of arrival
        self._on_payload = on_payload
        # number of users by group
        self._reference_counts: Counter[str] = Counter()
        # times of the last join or renewal by group
        self._joined: dict[str, float] = {}
        # times of attempts to leave that failed, by group; the layer may still execute them
        self._uncertain: dict[str, float] = {}
        # prevents overlapping calls, by group
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # incremented when the layer fails, so that joins which began before are not trusted
        self._generation = 0
        # the channel, while `listen` runs
        self._channel: LayerChannel | None = None
        # set when the channel is open
        self._listening = asyncio.Event()

    def __len__(self) -> int:
        """Return the number of groups that are used or not left yet."""
        return len(self._reference_counts.keys() | self._joined.keys())

    def has_joined(self, group: str) -> bool:
        """Return whether a group is joined."""
        return group in self._joined

    async def acquire(self, group: str, timeout: float = JOIN_TIMEOUT) -> None:
        """Increment the reference count of a group, and join it if it is not joined.

        Returns after ``timeout`` seconds even if the layer does not answer. `sweep` tries again.
        """
        self._reference_counts[group] += 1
        if group not in self._joined:
            await self._join(group, timeout)

    def release(self, group: str) -> None:
        """Decrement the reference count. The next sweep leaves the unused groups."""
        self._reference_counts[group] -= 1

    def _lock(self, group: str) -> asyncio.Lock:
        return self._locks.setdefault(group, asyncio.Lock())

    async def _join(
        self, group: str, timeout: float = JOIN_TIMEOUT, *, renew: bool = False
    ) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._listening.wait()
                async with self._lock(group):
                    if self._channel is None or (group in self._joined and not renew):
                        return
                    generation = self._generation
                    await self._channel.join(group)
        except Exception as error:
            metrics.layer_failures["join"] += 1
            logger.warning("A group could not be joined; it will be tried again: %r", error)
            return
        if generation == self._generation:
            self._joined[group] = _now()

    async def _leave(self, group: str) -> None:
        async with self._lock(group):
            if self._reference_counts[group] > 0:
                return  # acquired while waiting for the lock
            del self._reference_counts[group]
            if self._joined.pop(group, None) is None or self._channel is None:
                return
            try:
                await self._channel.leave(group)
            except Exception as error:
                self._uncertain[group] = _now()
                logger.debug("A group could not be left; its membership will expire: %r", error)

    async def listen(self) -> None:
        """Receive messages forever, also after the layer has failed."""
        delay = RETRY_DELAYS[0]
        while True:
            try:
                if self._channel is None:
                    self._channel = await LayerChannel.open(broker.origin)
                    self._listening.set()
                    if self._channel is None:
                        logger.error("There is no channel layer; nothing will be received.")
                        return
                for group in list(self._reference_counts):
                    if self._reference_counts[group] > 0 and group not in self._joined:
                        await self._join(group)
                while True:
                    payloads = await self._channel.receive()
                    delay = RETRY_DELAYS[0]
                    for payload in payloads:
                        self._on_payload(payload)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._join_again()
                metrics.layer_failures["receive"] += 1
                logger.info("The channel layer failed; it will be tried again: %r", error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_DELAYS[1])

    async def sweep(self) -> None:
        """Renew memberships and leave unused groups, forever."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            if self._channel is not None and await self._channel.has_lost_groups():
                self._join_again()
            for group in list(self._reference_counts):
                # read the count now, since it may have changed while this method waited
                if self._reference_counts[group] <= 0:
                    await self._leave(group)
                elif self._channel and self._is_due(group):
                    await self._join(group, renew=True)
            for group, left_at in list(self._uncertain.items()):
                if _now() - left_at > RENEW_INTERVAL:
                    del self._uncertain[group]

    def _join_again(self) -> None:
        """Let all groups be joined again, because the layer may have lost the memberships."""
        self._generation += 1
        self._joined.clear()

    def _is_due(self, group: str) -> bool:
        """Return whether a group must be joined or renewed in this sweep.

        It is in each sweep if an attempt to leave failed, since that may still be executed.
        """
        joined_at = self._joined.get(group)
        return joined_at is None or group in self._uncertain or _now() - joined_at >= RENEW_INTERVAL

    async def leave_all(self) -> None:
        """Leave all groups. `listen` must have ended."""
        channel, joined = self._channel, list(self._joined)
        self._channel = None
        self._joined.clear()
        self._reference_counts.clear()
        self._listening.clear()
        if channel is None:
            return
        try:
            for group in joined:
                await channel.leave(group)
        except Exception as error:
            logger.debug("Groups could not be left; their memberships will expire: %r", error)


def _now() -> float:
    return asyncio.get_running_loop().time()
