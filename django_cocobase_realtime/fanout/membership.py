"""The one channel of the layer that a process has, and the groups that it is in.

Groups are joined while anybody here needs them, counted, and renewed: a flushed or restarted
Redis forgets memberships, and a receiver stays deaf until it joins again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from .broker import broker
from .layer import Inbox

logger = logging.getLogger(__name__)

SWEEP = 1.0  # seconds between looks at groups to leave or to join again
RENEW = 30.0  # seconds after which memberships are renewed: a flushed Redis forgets them
PATIENCE = 5.0  # seconds to wait for a group, where nothing but the layer brings its events
QUICK = 0.5  # where the log brings them anyway
RETRY = (0.1, 2.0)  # seconds, first and longest wait before listening to the layer again


class Membership:
    """Hands payloads to ``take`` in the order in which they came. One an event loop."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._needed: Counter[str] = Counter()
        self._joined: dict[str, float] = {}
        self._inbox: Inbox | None = None
        self._listening = asyncio.Event()

    async def need(self, group: str, patience: float = PATIENCE) -> None:
        """One more who needs the group; returns once it is joined, or cannot be for now.

        ``patience``: seconds to wait for a layer that does not answer; the sweep goes on trying.
        """
        self._needed[group] += 1
        if group not in self._joined:
            await self._join(group, patience)

    def release(self, group: str) -> None:
        """One less; a group that nobody needs is left by and by."""
        self._needed[group] -= 1

    async def _join(self, group: str, patience: float = PATIENCE) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._listening.wait()
                if self._inbox is None:
                    return
                await self._inbox.join(group)
        except Exception as error:
            logger.warning("The channel layer refused a group, trying again: %r", error)
        else:
            self._joined[group] = _now()

    async def listen(self) -> None:
        """Receive for ever; survives a layer whose server is killed."""
        wait = RETRY[0]
        while True:
            try:
                if self._inbox is None:
                    self._inbox = await Inbox.open(broker.origin)
                    self._listening.set()
                    if self._inbox is None:
                        logger.error("No channel layer: nothing comes from other processes.")
                        return
                for group, needed in list(self._needed.items()):
                    if needed > 0 and group not in self._joined:
                        await self._join(group)
                while True:
                    payloads = await self._inbox.receive()
                    wait = RETRY[0]
                    for payload in payloads:
                        self._take(payload)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # groups may be gone with the layer's server: join them all again
                self._joined.clear()
                logger.info("The channel layer is silent, listening again: %r", error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, RETRY[1])

    async def sweep(self) -> None:
        """Renew what is needed and leave what is not, for ever."""
        while True:
            await asyncio.sleep(SWEEP)
            inbox, now = self._inbox, _now()
            if inbox is None:
                continue
            for group, needed in list(self._needed.items()):
                if needed > 0:
                    if now - self._joined.get(group, -RENEW) >= RENEW:
                        await self._join(group)
                    continue
                del self._needed[group]
                if self._joined.pop(group, None) is not None:
                    try:
                        await inbox.leave(group)
                    except Exception as error:
                        logger.debug("A group was left to expire: %r", error)

    async def leave_all(self) -> None:
        """Leave every group, once nobody listens any more."""
        inbox, joined = self._inbox, list(self._joined)
        self._inbox = None
        self._joined.clear()
        self._needed.clear()
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
