"""A window: the first rows of an order, of which some more are known than clients are sent.

If a row leaves the window, the first of these spare rows takes its place. The database is asked for
further rows only when they are used up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..events import Change

# rows behind a window that are kept; with 20, a refill is needed once in about 250 events
SPARE_ROWS = 20

# what a row is sorted by, with the key: no two rows have the same place
Place = Any


class WindowRow(NamedTuple):
    """A row with its place in the order."""

    place: Place
    # id of the document
    id: str
    # its last change, or its creation if it was read, with a decoded image
    change: Change


class WindowResult(NamedTuple):
    """The rows that clients are sent."""

    rows: tuple[WindowRow, ...]
    # whether further rows match behind them
    more: bool


class Window:
    """The known rows of a window, in order.

    ``limit`` is the largest number of rows that a client is sent, and ``after`` the place behind
    which the window begins; None for the first row.
    """

    def __init__(
        self, limit: int, after: Place | None = None, spare_rows: int | None = None
    ) -> None:
        self.limit = limit
        self._after = after
        self._spare_rows = SPARE_ROWS if spare_rows is None else spare_rows
        # the known rows in order; up to `_bound`, these are all that match
        self._rows: list[WindowRow] = []
        # places of the known rows by id
        self._places: dict[str, Place] = {}
        # the row up to whose place all rows are known, although it may have left; None if all are
        self._bound: WindowRow | None = None

    @property
    def size(self) -> int:
        """Number of rows to read, so that there are spare ones.

        One behind the window is needed to know whether there are more, and is none of them.
        """
        return self.limit + 1 + self._spare_rows

    @property
    def is_short(self) -> bool:
        """Whether rows that belong to the window, or the one behind it, may be unknown."""
        return self._bound is not None and len(self._rows) <= self.limit

    @property
    def missing(self) -> int:
        """Number of rows to read behind `bound`."""
        return max(1, self.size - len(self._rows))

    @property
    def bound(self) -> WindowRow | None:
        """The row up to whose place all rows are known, although it may have left the window.

        None if all rows are known.
        """
        return self._bound

    def __contains__(self, id: str) -> bool:
        return id in self._places

    def result(self, limit: int) -> WindowResult:
        """Return the first rows, none of which may be unknown, see `is_short`."""
        return WindowResult(tuple(self._rows[:limit]), len(self._rows) > limit)

    def load(self, rows: Sequence[WindowRow], *, is_cut: bool) -> None:
        """Replace all rows. ``is_cut`` is whether further rows match behind them."""
        self._rows, self._bound = [], None
        self._places = {}
        self._append(rows, is_cut)

    def fill(self, rows: Sequence[WindowRow], *, is_cut: bool) -> None:
        """Add the rows behind `bound`."""
        self._append(rows, is_cut)

    def apply(self, id: str, row: WindowRow | None) -> None:
        """Apply a change of a row, which is None if it does not match any more."""
        place = self._places.pop(id, None)
        if place is not None:
            del self._rows[bisect_left(self._rows, place, key=_place)]
        if row is not None and self._is_known(row.place):
            self._rows.insert(bisect_left(self._rows, row.place, key=_place), row)
            self._places[id] = row.place
            if len(self._rows) > self.size + self._spare_rows:
                self._trim()

    def trim(self) -> None:
        """Forget the rows that are not needed, after `limit` was made smaller."""
        if len(self._rows) > self.size:
            self._trim()

    def _is_known(self, place: Place) -> bool:
        """Return whether all rows before a place are known, and it is in the window's range."""
        if self._after is not None and not place > self._after:
            return False
        return self._bound is None or bool(place <= self._bound.place)

    def _append(self, rows: Iterable[WindowRow], is_cut: bool) -> None:
        for row in rows:
            self._rows.append(row)
            self._places[row.id] = row.place
        self._bound = self._rows[-1] if is_cut and self._rows else None

    def _trim(self) -> None:
        for row in self._rows[self.size :]:
            del self._places[row.id]
        del self._rows[self.size :]
        self._bound = self._rows[-1]


def _place(row: WindowRow) -> Place:
    return row.place
