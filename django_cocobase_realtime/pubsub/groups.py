"""The one channel of the layer that a process has, and the groups that it is in.

Groups are joined while anybody here needs them, counted, and renewed: a flushed or restarted
Redis forgets memberships, and a receiver stays deaf until it joins again.
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

SWEEP_INTERVAL = 1.0  # seconds between looks at groups to leave or to join again
RENEW_INTERVAL = 30.0  # seconds after which memberships are renewed: a flushed Redis forgets them
JOIN_TIMEOUT = 5.0  # seconds to wait for a group, where nothing but the layer brings its events
JOIN_TIMEOUT_DURABLE = 0.5  # where the log brings them anyway
RETRY_DELAYS = (0.1, 2.0)  # seconds, first and longest wait before listening to the layer again


class GroupMemberships:
    """Hands payloads to ``take`` in the order in which they came. One an event loop.

    A group is joined and left by one call of the layer at a time: two of them may go over two
    connections, and the later one be done first.
    """

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._on_payload = take
        self._reference_counts: Counter[str] = Counter()
        self._joined: dict[str, float] = {}
        self._uncertain: dict[str, float] = {}  # when it was left, perhaps: nobody answered
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._generation = 0  # of the layer: what was joined in an earlier one is forgotten
        self._channel: LayerChannel | None = None
        self._listening = asyncio.Event()

    def __len__(self) -> int:
        """How many groups are needed, or not left yet."""
        return len(self._reference_counts.keys() | self._joined.keys())

    async def acquire(self, group: str, patience: float = JOIN_TIMEOUT) -> None:
        """One more who needs the group; returns once it is joined, or cannot be for now.

        ``patience``: seconds to wait for a layer that does not answer; the sweep goes on trying.
        """
        self._reference_counts[group] += 1
        if group not in self._joined:
            await self._join(group, patience)

    def release(self, group: str) -> None:
        """One less; a group that nobody needs is left by and by."""
        self._reference_counts[group] -= 1

    def _lock(self, group: str) -> asyncio.Lock:
        return self._locks.setdefault(group, asyncio.Lock())

    async def _join(
        self, group: str, patience: float = JOIN_TIMEOUT, *, again: bool = False
    ) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._listening.wait()
                async with self._lock(group):
                    if self._channel is None or (group in self._joined and not again):
                        return
                    lives = self._generation
                    await self._channel.join(group)
        except Exception as error:
            logger.warning("The channel layer refused a group, trying again: %r", error)
            return
        if lives == self._generation:
            self._joined[group] = _now()

    async def _leave(self, group: str) -> None:
        async with self._lock(group):
            if self._reference_counts[group] > 0:
                return  # meanwhile
            del self._reference_counts[group]
            if self._joined.pop(group, None) is None or self._channel is None:
                return
            try:
                await self._channel.leave(group)
            except Exception as error:
                self._uncertain[group] = _now()
                logger.debug("A group was left to expire: %r", error)

    async def listen(self) -> None:
        """Receive for ever; survives a layer whose server is killed."""
        wait = RETRY_DELAYS[0]
        while True:
            try:
                if self._channel is None:
                    self._channel = await LayerChannel.open(broker.origin)
                    self._listening.set()
                    if self._channel is None:
                        logger.error("No channel layer: nothing comes from other processes.")
                        return
                for group in list(self._reference_counts):
                    if self._reference_counts[group] > 0 and group not in self._joined:
                        await self._join(group)
                while True:
                    payloads = await self._channel.receive()
                    wait = RETRY_DELAYS[0]
                    for payload in payloads:
                        self._on_payload(payload)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # groups may be gone with the layer's server: join them all again
                self._generation += 1
                self._joined.clear()
                logger.info("The channel layer is silent, listening again: %r", error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, RETRY_DELAYS[1])

    async def sweep(self) -> None:
        """Renew what is needed and leave what is not, for ever."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            for group in list(self._reference_counts):
                # looked at now: whoever waits for the layer is overtaken by those who come and go
                if self._reference_counts[group] <= 0:
                    await self._leave(group)
                elif self._channel and self._is_due(group):
                    await self._join(group, again=True)
            for group, left in list(self._uncertain.items()):
                if _now() - left > RENEW_INTERVAL:
                    del self._uncertain[group]

    def _is_due(self, group: str) -> bool:
        """Whether to join it again; at each look where it may be left late."""
        joined = self._joined.get(group)
        return joined is None or group in self._uncertain or _now() - joined >= RENEW_INTERVAL

    async def leave_all(self) -> None:
        """Leave every group, once nobody listens any more."""
        inbox, joined = self._channel, list(self._joined)
        self._channel = None
        self._joined.clear()
        self._reference_counts.clear()
        self._listening.clear()
        if inbox is None:
            return
        try:
            for group in joined:
                await inbox.leave(group)
        except Exception as error:
            logger.debug("Groups were left to expire: %r", error)


def _now() -> float:
    return asyncio.get_running_loop().time()
