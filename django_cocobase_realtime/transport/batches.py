"""Batches: several events in one frame, for clients that asked for it in ``auth``.

In a burst most of a delivery's cost is the frame, the system call and the server's bookkeeping;
events that come in one turn of the loop share them. One a hub.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..wire import frames

if TYPE_CHECKING:
    from .writer import Writer


class FrameBatcher:
    """Releases writers once a turn of the loop; joins what is the same for many only once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Writer] = []
        self._last: tuple[list[str], str] = ([], "")

    def schedule(self, writer: Writer) -> None:
        """Have the writer release what it gathered, at the end of this turn of the loop."""
        self._waiting.append(writer)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._release)

    def join(self, events: list[str]) -> str:
        """One frame of events that are frames already; a single one is itself."""
        if len(events) == 1:
            return events[0]
        last, text = self._last
        if last != events:  # the same objects, mostly: compared by identity first
            text = frames.join_events(events)
            self._last = (events, text)
        return text

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for writer in waiting:
            writer.flush_batch()
        self._last = ([], "")
