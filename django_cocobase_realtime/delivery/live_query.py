"""A live query: a result that several subscriptions share, and that events keep up to date.

All subscriptions with the same filter and query share one result. Each change is applied to it
once, and makes one frame for each form in which subscriptions need it. Sometimes the change is not
enough, because a row is needed that is not known. Then the database is read as of the position of
the change. Until it answers, further changes wait, and only the subscriptions to this query wait
with them: a client never sees an incomplete result.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..events import Change
from ..filters import Filter, Row
from ..log.cursor import Position
from ..log.touched import CannotUndo
from ..transport.fan_out import fan_out
from ..transport.writer import Writer
from ..utils.concurrency import run_in_threadpool, set_owner
from ..utils.project_code import DATABASE_UNAVAILABLE
from ..utils.repeated_log import log_repeated
from ..wire.result_frames import ResultEnd
from .snapshot import cursor_at
from .subscription import Subscription

logger = logging.getLogger(__name__)

# reads as of a position, each of a later one, before the result is read as it is now
MAX_ATTEMPTS = 5
# seconds before another read after an exception of the database
RETRY_INTERVAL = 1.0
# characters of a whole result that is kept for the next subscription
MAX_KEPT_LENGTH = 64 * 1024

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ResultForm:
    """The properties that decide which frames a subscription gets, apart from the query."""

    # name of the subscription
    subscription: str
    # names of the fields in a document's data; None for all of a serializer
    fields: tuple[str, ...] | None = None
    # number of documents; 0 for aggregates
    limit: int = 0


@dataclass(frozen=True, slots=True)
class RowChange:
    """A change of a row, and whether it matched the filter of a query."""

    change: Change
    # the row before and after the change if it matched then
    before: Row | None
    after: Row | None
    # whether it is not known what the row was before the change
    is_partial: bool = False


class ResultState(ABC, Generic[R]):
    """The result of a query. Subclasses keep it up to date by changes.

    If `is_incomplete`, nothing may be applied before a read has completed it.
    """

    @property
    @abstractmethod
    def is_incomplete(self) -> bool:
        """Whether the database must be read."""

    @property
    def is_exact(self) -> bool:
        """Whether the result must be read as of a position, and cannot be read as it is now."""
        return False

    @abstractmethod
    def apply(self, change: RowChange) -> None:
        """Apply a change of a row that matched before or after it."""

    @abstractmethod
    def reader(self, filter: Filter) -> Callable[[Position | None], Any]:
        """Return the function that reads what is missing at a position, or now.

        The function is called in a thread. It may raise `CannotUndo`.
        """

    @abstractmethod
    def complete(self, value: Any) -> None:
        """Add what the function of `reader` has returned."""

    @abstractmethod
    def invalidate(self) -> None:
        """Have the whole result read again."""

    @abstractmethod
    def set_forms(self, forms: list[ResultForm]) -> None:
        """Keep what these forms need."""

    @abstractmethod
    def result(self, form: ResultForm) -> R:
        """Return the result in a form. It does not change any more."""

    @abstractmethod
    def frames(self, form: ResultForm, old: R | None, new: R, end: ResultEnd) -> Iterator[str]:
        """Yield the frames that make one result of another, or of nothing.

        If nothing has changed, there is a frame only if ``end`` requires it.
        """

    @property
    def size(self) -> int:
        """Bytes of the rows that are kept, roughly."""
        return 0


class _Members(Generic[R]):
    """The live subscriptions of one form."""

    __slots__ = ("sent", "whole", "writers")

    def __init__(self) -> None:
        self.writers: dict[Subscription, Writer] = {}
        # the result that all of them were sent
        self.sent: R | None = None
        # the frames of a whole result for its end, for the next subscription
        self.whole: tuple[ResultEnd, tuple[str, ...]] | None = None


class LiveQuery(Generic[R]):
    """The result of one query, and the subscriptions to it. Belongs to one event loop.

    ``get_position`` returns the position of the last delivered change, and ``catch_up`` waits until
    all changes are delivered that were committed before. ``end`` ends a subscription after an
    exception.
    """

    def __init__(
        self,
        stream: str,
        filter: Filter,
        state: ResultState[R],
        *,
        get_position: Callable[[], Position],
        catch_up: Callable[[], Awaitable[None]],
        end: Callable[[Subscription, Exception], None],
    ) -> None:
        self._stream = stream
        self.filter = filter
        # public for those who watch over results, such as regular counts
        self.state = state
        self._get_position = get_position
        self._catch_up = catch_up
        self._end = end
        # the live subscriptions by form
        self._members: dict[ResultForm, _Members[R]] = {}
        # subscriptions that wait for their first result, and the form of each
        self._joining: dict[Subscription, ResultForm] = {}
        # number of the last change that was applied
        self.last_seq = 0
        # changes that wait for the database
        self._waiting: deque[RowChange] = deque()
        # reads what is missing; None while the result is complete
        self._task: asyncio.Task[None] | None = None
        # an exception after which this query is not continued
        self._error: Exception | None = None

    # subscriptions

    @property
    def is_unused(self) -> bool:
        """Whether there are no subscriptions to it."""
        return not self._members and not self._joining

    def subscriptions(self) -> list[Subscription]:
        """Return all subscriptions to it."""
        live = (
            subscription for members in self._members.values() for subscription in members.writers
        )
        return [*live, *self._joining]

    def join(self, subscription: Subscription, form: ResultForm) -> None:
        """Add a subscription, which gets no frames before `attach`."""
        self._joining[subscription] = form
        self._set_forms()

    def attach(self, subscription: Subscription) -> None:
        """Make a subscription live that was sent the present result. The result is complete."""
        form = self._joining.pop(subscription)
        members = self._members.get(form)
        if members is None:
            members = self._members[form] = _Members()
            members.sent = self.state.result(form)
        members.writers[subscription] = subscription.connection.writer

    def discard(self, subscription: Subscription) -> R | None:
        """Remove a subscription; return the result that it was sent, if it was live."""
        self._joining.pop(subscription, None)
        sent: R | None = None
        for form, members in list(self._members.items()):
            if members.writers.pop(subscription, None) is not None:
                sent = members.sent
                if not members.writers:
                    del self._members[form]
        if self._error is None and not self.is_unused:
            self._set_forms()
        return sent

    def _set_forms(self) -> None:
        self.state.set_forms([*self._members, *self._joining.values()])
        if self.state.is_incomplete and self._task is None:
            self._start_reading(self._get_position())

    @property
    def waiting(self) -> int:
        """Number of changes that wait for the database."""
        return len(self._waiting)

    @property
    def is_complete(self) -> bool:
        """Whether the result is that at the position, and nothing is read."""
        return self._task is None and self._error is None and not self.state.is_incomplete

    async def wait_complete(self) -> None:
        """Wait until the result is complete. Raises the exception of a read."""
        while self._task is not None:
            await asyncio.wait({self._task})
        if self._error is not None:
            raise self._error

    def whole_frames(self, form: ResultForm, result: R, end: ResultEnd) -> Iterator[str]:
        """Yield the frames of a whole result. Subscriptions of one form share those of one end."""
        members = self._members.get(form)
        if members is not None and members.whole is not None and members.whole[0] == end:
            yield from members.whole[1]
            return
        texts: list[str] = []
        length = 0
        for text in self.state.frames(form, None, result, end):
            length += len(text)
            if length <= MAX_KEPT_LENGTH:
                texts.append(text)
            yield text
        members = self._members.get(form)
        if members is not None and length <= MAX_KEPT_LENGTH and members.sent == result:
            members.whole = (end, tuple(texts))

    def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()

    # changes

    def receive(self, change: RowChange) -> None:
        """Handle a change of a row that matched before or after it."""
        self._waiting.append(change)
        if self._task is None:
            self._apply_waiting()

    def _apply_waiting(self) -> None:
        """Apply the changes that wait; stop if the database must be read."""
        while self._waiting:
            change = self._waiting.popleft()
            position = Position(change.change.epoch or "", change.change.seq or 0)
            self.last_seq = position.seq
            try:
                self.state.apply(change)
            except Exception:
                # a value of the project that cannot be compared, for example
                text, name = "A change of %r cannot be applied to a live query.", self._stream
                log_repeated(logger, logging.ERROR, text, name, kind=name, exc_info=True)
                self.state.invalidate()
            if self.state.is_incomplete:
                if self._task is None:
                    self._start_reading(position)
                else:
                    self._position = position
                return
            self._send(position)

    def _send(self, position: Position) -> None:
        """Send what has changed to the live subscriptions."""
        end: ResultEnd | None = None
        for form, members in self._members.items():
            if end is None:
                end = ResultEnd(cursor_at(self._stream, position) or "")
            result = self.state.result(form)
            *parts, last = list(self.state.frames(form, members.sent, result, end)) or [""]
            members.sent, members.whole = result, None
            writers = list(members.writers.values())
            for text in parts:
                fan_out(writers, text, None)
            if last:
                fan_out(writers, last, end.cursor)

    def read_again(self) -> None:
        """Read the whole result again, and send what differs."""
        if self._task is None and self._error is None:
            self.state.invalidate()
            self._start_reading(self._get_position())

    # reading

    def _start_reading(self, position: Position) -> None:
        self._position = position
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self.state.is_incomplete:
                value = await self._read()
                self.state.complete(value)
                if not self.state.is_incomplete:
                    self._send(self._position)
                    self._apply_waiting()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._error = error
            for subscription in self.subscriptions():
                if subscription not in self._joining:  # those that join get it from `wait_complete`
                    self._end(subscription, error)
        finally:
            self._task = None

    async def _read(self) -> Any:
        """Read what is missing at the position, or at a later one if that is not possible."""
        for _ in range(MAX_ATTEMPTS):
            try:
                return await self._call(self._position)
            except CannotUndo:
                await self._go_to_head()
        if self.state.is_exact:
            return await self._call(self._position)
        return await self._call(None)

    async def _go_to_head(self) -> None:
        """Have the result read at a later position, as of which less must be undone."""
        await self._catch_up()
        self._position = self._get_position()
        self.state.invalidate()
        self._waiting.clear()  # the position is behind them

    async def _call(self, position: Position | None) -> Any:
        """Call the reader in a thread, again if the database does not answer."""
        while True:
            subscriptions = self.subscriptions()
            if subscriptions:
                owner = subscriptions[0].connection.owner.background()
                set_owner(owner, self._stream)
            # in the event loop, since the keys of key sets change
            read = self.state.reader(self.filter.with_held_keys())
            try:
                return await run_in_threadpool(read, position)
            except DATABASE_UNAVAILABLE as error:
                if not self._members:
                    raise
                text, name = "A live query of %r cannot be read: %r", self._stream
                log_repeated(logger, logging.WARNING, text, name, error, kind=name)
                await asyncio.sleep(RETRY_INTERVAL)
