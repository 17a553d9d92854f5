"""The state of a live query for a window: reads its rows, and makes its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from msgspec.structs import replace

from ..conf import conf
from ..declarations.collection import Collection
from ..events import Change
from ..filters import Filter
from ..live_queries import page_cursor
from ..live_queries.differences import differences
from ..live_queries.queries import WindowQuery
from ..live_queries.window import Window, WindowResult, WindowRow
from ..log.as_of import rows_as_of
from ..log.cursor import Position
from ..log.row_order import RowOrder
from ..metrics import metrics
from ..utils.json_text import encode_json
from ..wire.result_frames import ResultEnd, window_parts
from .event_frames import document_of
from .live_query import ResultForm, ResultState, RowChange
from .snapshot import encode_document


class _Rows(NamedTuple):
    """Rows that were read."""

    rows: list[WindowRow]
    # whether further rows match
    is_cut: bool
    # whether they are the first rows of the window, and not those behind the known ones
    are_all: bool
    # bytes of their images
    size: int


class WindowState(ResultState[WindowResult]):
    """The known rows of a window. Those that share it may have different limits."""

    def __init__(self, collection: Collection, query: WindowQuery) -> None:
        self._collection = collection
        self._query = query
        self._order = RowOrder(collection, query.order)
        after = None if query.after is None else self._order.place_of_values(query.after)
        self._window = Window(query.limit, after)
        # whether the rows must be read from the first one
        self._must_load = True
        # bytes of the rows that were read
        self._size = 0

    @property
    def is_incomplete(self) -> bool:
        """Whether rows must be read."""
        return self._must_load or self._window.is_short

    @property
    def size(self) -> int:
        """Bytes of the images of the rows, when they were read."""
        return self._size

    def set_forms(self, forms: list[ResultForm]) -> None:
        """Keep as many rows as the form with the largest limit needs."""
        limit = max(form.limit for form in forms)
        if limit != self._window.limit:
            self._window.limit = limit
            self._window.trim()

    def invalidate(self) -> None:
        """Have all rows read again."""
        self._must_load = True

    def apply(self, change: RowChange) -> None:
        """Apply a change of a row."""
        self._apply(change.change, matches=change.after is not None)

    def _apply(self, change: Change, *, matches: bool) -> None:
        row = None
        if matches and change.after is not None:
            # without the image before it, which is not needed
            document = replace(change, op="updated", before=None)
            row = WindowRow(self._order.place(change.after), change.document_id, document)
        self._window.apply(change.document_id, row)

    def reader(self, filter: Filter) -> Callable[[Position | None], _Rows]:
        """Return a function that reads the first rows, or those behind the known ones."""
        window, bound = self._window, self._window.bound
        if self._must_load or bound is None:
            metrics.window_reads["all"] += 1
            return partial(self._read, filter, window.size, self._query.after, True)
        assert bound.change.after is not None
        values = self._order.values(bound.change.after)
        metrics.window_reads["refill"] += 1
        return partial(self._read, filter, window.missing, values, False)

    def complete(self, value: _Rows) -> None:
        """Add rows that were read."""
        if value.are_all:
            self._must_load = False
            self._window.load(value.rows, is_cut=value.is_cut)
            self._size = value.size
        else:
            self._window.fill(value.rows, is_cut=value.is_cut)
            self._size = max(self._size, value.size)

    def result(self, form: ResultForm) -> WindowResult:
        """Return the first rows."""
        return self._window.result(form.limit)

    def frames(
        self, form: ResultForm, old: WindowResult | None, new: WindowResult, end: ResultEnd
    ) -> Iterator[str]:
        """Yield the frames that make the documents of one result of those of another."""
        rows = () if old is None else old.rows
        difference = differences(rows, new.rows, partial(_look_equal, form.fields))
        next = None
        if new.more and (old is None or not old.more or _last_place(old) != _last_place(new)):
            next = self._page_cursor(new.rows[-1])
        is_changed = difference or old is None or old.more is not new.more or next is not None
        if not is_changed and not end.is_required:
            return
        yield from window_parts(
            form.subscription,
            remove=[rows[index].id for index in difference.remove],
            insert=((index, _encode(form, new.rows[index])) for index in difference.insert),
            reset=old is None,
            more=new.more,
            next=next,
            end=end,
            max_bytes=conf.limits.event_bytes,
        )

    def _page_cursor(self, row: WindowRow) -> str:
        """Return the cursor of the page behind a row."""
        assert row.change.after is not None
        values = self._order.values(row.change.after)
        return page_cursor.encode(self._collection.stream, self._query.order, values)

    # in worker threads

    def _read(
        self,
        filter: Filter,
        limit: int,
        after: Sequence[Any] | None,
        are_all: bool,
        position: Position | None,
    ) -> _Rows:
        order = self._query.order
        result = rows_as_of(
            self._collection, filter, position, limit=limit, order=order, after=after
        )
        rows = []
        size = 0
        for change in result.documents:
            assert change.after is not None
            rows.append(WindowRow(self._order.place(change.after), change.document_id, change))
            size += len(encode_json(change.after))
        # the database and Python must not disagree, not even about keys of the project's fields
        rows.sort(key=lambda row: row.place)
        return _Rows(rows, result.is_cut, are_all, size)


def _look_equal(fields: tuple[str, ...] | None, one: WindowRow, other: WindowRow) -> bool:
    """Return whether two rows are the same document to a client."""
    return document_of(one.change, fields) == document_of(other.change, fields)


def _last_place(result: WindowResult) -> Any:
    return result.rows[-1].place if result.rows else None


def _encode(form: ResultForm, row: WindowRow) -> bytes:
    return encode_document(document_of(row.change, form.fields))
