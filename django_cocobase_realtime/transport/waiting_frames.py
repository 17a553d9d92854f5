"""Frames that wait in memory until they can be sent, and how many bytes they take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from sys import getsizeof
from typing import Generic, Protocol, TypeVar

# a frame while it waits: a text if it is ASCII, or else its UTF-8
WaitingFrame = str | bytes

T = TypeVar("T")


def pack(text: str) -> WaitingFrame:
    """Return a frame as it is kept while it waits.

    A text with one character that is not ASCII takes up to four bytes for each of its characters.
    """
    return text if text.isascii() else text.encode("utf-8", "surrogatepass")


def unpack(frame: WaitingFrame) -> str:
    """Return the text of a frame that was kept."""
    return frame if isinstance(frame, str) else frame.decode("utf-8", "surrogatepass")


def size_of(frames: Iterable[WaitingFrame]) -> int:
    """Return the bytes of memory that frames take."""
    return sum(map(getsizeof, frames))


class ByteAccount(Protocol):
    """The bytes that wait for one connection, which `Writer` counts."""

    def reserve(self, frames: int, size: int) -> None:
        """Count frames that wait outside of the queue. The limits may be exceeded by this."""

    def release(self, frames: int, size: int) -> None:
        """Count no longer what was reserved."""

    def push_event(self, text: str, cursor: str | None = None) -> None:
        """Send an event."""


class CountedFrames(Generic[T]):
    """Frames that wait outside of the queue, each with a note.

    They are counted like those in the queue of the connection, so that they cannot fill the memory.
    """

    __slots__ = ("_account", "_bytes", "_frames")

    def __init__(self, account: ByteAccount) -> None:
        self._account = account
        self._frames: list[tuple[WaitingFrame, T]] = []
        # bytes of the frames
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, text: str, note: T) -> None:
        """Add a frame."""
        frame = pack(text)
        size = getsizeof(frame)
        self._frames.append((frame, note))
        self._bytes += size
        self._account.reserve(1, size)

    def clear(self) -> None:
        """Remove all frames."""
        self._account.release(len(self._frames), self._bytes)
        self._frames, self._bytes = [], 0

    def take(self) -> Iterator[tuple[str, T]]:
        """Remove all frames, and return them with their notes."""
        frames = self._frames
        self.clear()
        return ((unpack(frame), note) for frame, note in frames)


class FrameBuffer(CountedFrames[int | None]):
    """Events that must be sent after others, which are still being read.

    The note is the number of the event in a history, or None. They cannot be dropped.
    """

    __slots__ = ()

    def append(self, text: str, seq: int | None = None) -> None:
        """Add an event. ``seq`` is its number in a history; None if it is not kept."""
        self.add(text, seq)

    def flush(self, after: int | None = None, push: Callable[[str], None] | None = None) -> None:
        """Send all events, or pass them to ``push``, without those numbered ``after`` or lower."""
        push = push or self._account.push_event
        for text, seq in self.take():
            if after is None or seq is None or seq > after:
                push(text)
