"""Sends messages to groups of a channel layer with several hosts.

A host that does not answer delays the messages to its groups. Which host has a group is known to
the layer alone, so each group whose messages are not accepted at once gets a *lane*: a task that
sends the messages to this group, while those to other groups are sent beside it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ..utils.concurrency import spawn_task

# seconds for which the messages to other groups wait until the layer accepts one
PATIENCE = 0.05
# messages that can wait in a lane; then the oldest are dropped
MAX_WAITING = 1000

M = TypeVar("M")


class Lanes(Generic[M]):
    """Sends messages to each group in order. All methods belong to one event loop."""

    def __init__(
        self,
        send: Callable[[M], Awaitable[bool]],
        resolve: Callable[[M, bool], None],
        on_empty: Callable[[], None],
    ) -> None:
        # sends a message and returns whether it was accepted
        self._send = send
        # called with each message, and whether it was accepted
        self._resolve = resolve
        # called when the last lane has ended
        self._on_empty = on_empty
        # messages that wait, by group, while the lane of this group is open
        self._waiting: dict[str, deque[M]] = {}
        # groups whose last message was not accepted; nothing waits for their next one
        self._failing: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def send(self, group: str, message: M) -> None:
        """Send a message, or put it into the lane of its group."""
        waiting = self._waiting.get(group)
        if waiting is not None:
            if len(waiting) >= MAX_WAITING:
                self._resolve(waiting.popleft(), False)
            waiting.append(message)
            return
        self._waiting[group] = deque([message])
        task = spawn_task(self._run(group))
        if group not in self._failing:
            await asyncio.wait({task}, timeout=PATIENCE)

    async def _run(self, group: str) -> None:
        waiting = self._waiting[group]
        try:
            while waiting:
                accepted = False
                message = waiting.popleft()
                try:
                    accepted = await self._send(message)
                finally:
                    self._resolve(message, accepted)
                if accepted:
                    self._failing.discard(group)
                else:
                    self._failing.add(group)
        finally:
            del self._waiting[group]
            for message in waiting:
                self._resolve(message, False)
            if not self._waiting:
                self._on_empty()
