"""Positions in a stream: which frames a client has received, and which are duplicates."""

from __future__ import annotations

from .interfaces import Frame

# cursors that are remembered per stream; a duplicate comes shortly after the original
REMEMBERED_CURSORS = 1000


class CursorTracker:
    """The position of a client in one stream; recognizes duplicate frames."""

    __slots__ = ("_recent", "cursor")

    def __init__(self) -> None:
        # position up to which the client has all events; None before it is known
        self.cursor: str | None = None
        # the last cursors, oldest first, as keys of a dictionary, which keeps their order
        self._recent: dict[str, None] = {}

    def advance(self, frame: Frame) -> bool:
        """Move to the cursor of a frame; return False if the frame is a duplicate.

        A frame without a cursor does not move the position, and is never a duplicate.
        """
        cursor = frame.get("cursor")
        if cursor is None:
            return True
        if cursor in self._recent:
            return False
        self._recent[cursor] = None
        if len(self._recent) > REMEMBERED_CURSORS:
            del self._recent[next(iter(self._recent))]
        self.cursor = cursor
        return True
