"""The frames of a connection's rooms that are held while its permissions are evaluated again."""

from __future__ import annotations

import asyncio
from sys import getsizeof
from typing import Protocol

from ..transport.waiting_frames import WaitingFrame, pack, unpack
from ..transport.writer import Writer


class Held(Protocol):
    """The membership that a frame is for."""

    # whether it has ended, so that its frames must not be sent
    has_ended: bool


class HeldFrames:
    """The frames of all rooms of one connection, in the order in which they are to be sent.

    They are counted like those in the queue of the connection, so that they cannot fill the memory.
    """

    __slots__ = ("_bytes", "_done", "_frames", "_writer")

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        # the frames, each with its membership, and whether it is an event, see `Writer.push_event`
        self._frames: list[tuple[Held, WaitingFrame, bool]] = []
        # bytes of the frames
        self._bytes = 0
        # set when frames are held no longer
        self._done = asyncio.Event()

    async def wait(self) -> None:
        """Wait until frames are held no longer."""
        await self._done.wait()

    def append(self, membership: Held, text: str, *, is_event: bool) -> None:
        """Add a frame."""
        frame = pack(text)
        size = getsizeof(frame)
        self._frames.append((membership, frame, is_event))
        self._bytes += size
        self._writer.reserve(1, size)

    def flush(self) -> None:
        """Send all frames of memberships that have not ended."""
        frames = self._frames
        self.clear()
        for membership, frame, is_event in frames:
            if membership.has_ended:
                continue
            if is_event:
                self._writer.push_event(unpack(frame))
            else:
                self._writer.push(unpack(frame))

    def clear(self) -> None:
        """Drop all frames."""
        self._writer.release(len(self._frames), self._bytes)
        self._frames, self._bytes = [], 0
        self._done.set()
