"""The frames of a connection's rooms that are held while its permissions are evaluated again."""

from __future__ import annotations

import asyncio
from typing import Protocol

from ..transport.waiting_frames import CountedFrames
from ..transport.writer import Writer


class Held(Protocol):
    """The membership that a frame is for."""

    # whether it has ended, so that its frames must not be sent
    has_ended: bool


class HeldFrames(CountedFrames[tuple[Held, bool]]):
    """The frames of all rooms of one connection, in the order in which they are to be sent.

    The note is the membership, and whether the frame is an event, see `Writer.push_event`.
    """

    __slots__ = ("_done", "_writer")

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer)
        self._writer = writer
        # set when frames are held no longer
        self._done = asyncio.Event()

    async def wait(self) -> None:
        """Wait until frames are held no longer."""
        await self._done.wait()

    def append(self, membership: Held, text: str, *, is_event: bool) -> None:
        """Add a frame."""
        self.add(text, (membership, is_event))

    def flush(self) -> None:
        """Send all frames of memberships that have not ended."""
        for text, (membership, is_event) in self.take():
            if membership.has_ended:
                continue
            if is_event:
                self._writer.push_event(text)
            else:
                self._writer.push(text)

    def clear(self) -> None:
        """Drop all frames."""
        super().clear()
        self._done.set()
