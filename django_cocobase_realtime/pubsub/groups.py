"""The groups of the channel layer that this process is a member of.

A group is joined while at least one user in this process needs it (reference counted), and the
membership is renewed: a flushed or restarted Redis forgets it, and a receiver gets nothing until
it joins again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from weakref import WeakValueDictionary

from .broker import broker
from .layer import LayerChannel

logger = logging.getLogger(__name__)

SWEEP_INTERVAL = 1.0
"""Seconds between two looks at groups to leave, to join again or to renew."""
RENEW_INTERVAL = 30.0
"""Seconds after which a membership is renewed."""
JOIN_TIMEOUT = 5.0
"""Seconds to wait for a group whose events come over the layer only."""
JOIN_TIMEOUT_DURABLE = 0.5
"""Seconds to wait for a group whose events are also in the log."""
RETRY_DELAYS = (0.1, 2.0)
"""Seconds before receiving is tried again after an error: the first delay and the longest."""


class GroupMemberships:
    """Receives the messages of all groups over one channel. One per event loop.

    ``on_payload`` is called with each payload, in the order of arrival. Calls of the layer for one
    group never overlap: they could use two connections to Redis and arrive in the wrong order.
    """

    def __init__(self, on_payload: Callable[[bytes], None]) -> None:
        self._on_payload = on_payload
        # users of each group
        self._reference_counts: Counter[str] = Counter()
        # groups joined, with the time of the last join or renewal
        self._joined: dict[str, float] = {}
        # groups whose leave was not confirmed, with its time: the layer may still leave them
        self._uncertain: dict[str, float] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # incremented when the layer failed: joins of an older generation count as lost
        self._generation = 0
        self._channel: LayerChannel | None = None
        self._listening = asyncio.Event()

    def __len__(self) -> int:
        """Return how many groups are in use or not left yet."""
        return len(self._reference_counts.keys() | self._joined.keys())

    async def acquire(self, group: str, timeout: float = JOIN_TIMEOUT) -> None:
        """Increment the reference count, and join the group if that is necessary.

        Returns after ``timeout`` seconds even if the layer does not answer; `sweep` keeps trying.
        """
        self._reference_counts[group] += 1
        if group not in self._joined:
            await self._join(group, timeout)

    def release(self, group: str) -> None:
        """Decrement the reference count. Unused groups are left by the next sweep."""
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
            logger.warning("The channel layer refused to join a group, trying again: %r", error)
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
        """Receive messages forever; continue when the layer's server is restarted."""
        delay = RETRY_DELAYS[0]
        while True:
            try:
                if self._channel is None:
                    self._channel = await LayerChannel.open(broker.origin)
                    self._listening.set()
                    if self._channel is None:
                        logger.error("No channel layer: other processes cannot be reached.")
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
                # the layer's server may have lost all memberships: join every group again
                self._generation += 1
                self._joined.clear()
                logger.info("The channel layer failed, receiving again: %r", error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_DELAYS[1])

    async def sweep(self) -> None:
        """Renew memberships and leave unused groups, forever."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            for group in list(self._reference_counts):
                # check the count now: it may have changed while an earlier group was handled
                if self._reference_counts[group] <= 0:
                    await self._leave(group)
                elif self._channel and self._is_due(group):
                    await self._join(group, renew=True)
            for group, left_at in list(self._uncertain.items()):
                if _now() - left_at > RENEW_INTERVAL:
                    del self._uncertain[group]

    def _is_due(self, group: str) -> bool:
        """Return whether to join or renew now; at every sweep if a late leave may still happen."""
        joined_at = self._joined.get(group)
        return joined_at is None or group in self._uncertain or _now() - joined_at >= RENEW_INTERVAL

    async def leave_all(self) -> None:
        """Leave every group; called after `listen` has ended."""
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
