"""Positions in a stream: how far a client is, and which frames it has seen already."""

from __future__ import annotations

from .interfaces import Frame

# cursors remembered per stream; duplicates come shortly after the original
REMEMBERED_CURSORS = 1000


class CursorTracker:
    """Holds the current position in one stream and recognizes duplicate frames."""

    __slots__ = ("_recent", "cursor")

    def __init__(self) -> None:
        # the position up to which the client is complete; None before it is known
        self.cursor: str | None = None
        # the last cursors, oldest first; a dict, since it keeps its order
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
