"""Reading of the log on the event loop, by one connection to PostgreSQL for all streams.

Streams that must be read at the same time are read by one call. A thread is used for what the
function in the database cannot do: to number events with values that Python code makes, to convert
images that triggers wrote, and for all streams if there is no function, or a pooler such as
PgBouncer in transaction mode.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

import psycopg

from ..utils.concurrency import spawn_task
from . import postgres_numbering
from .column_images import is_by_column
from .cursor import Position
from .decoding import changes_from_rows
from .leadership import StreamLeadership
from .postgres_connection import ConnectionPooled, PostgresConnection
from .postgres_numbering import Statements, StreamRows
from .reader import StreamBatch
from .sequencer import related_stream
from .stored_values import collection_with_values
from .thread_reader import ThreadReader

T = TypeVar("T")

logger = logging.getLogger(__name__)

# seconds between two calls, so that under load each of them finds more events
CALL_INTERVAL = 0.004
# seconds for which a thread is used before the function is looked for again
RETRY_INTERVAL = 60.0
# seconds in which the server must answer the regular question for new events
ANSWER_TIMEOUT = 5.0
# sqlstates of a lost connection: None, or that of a server that ends the session
_LOST = (None, "57P01", "57P02", "57P05")

# reasons for which a thread is used
NOT_INSTALLED = "the function that does so is not installed"
POOLED = "its pooler gives each transaction another connection"


class _Request(NamedTuple):
    """A stream that must be read."""

    collection: str
    position: Position | None
    # result: None if the thread must read the stream
    rows: asyncio.Future[StreamRows | None]


class PostgresReader(ThreadReader):
    """Numbers and reads the events of the streams in one database, for one event loop."""

    def __init__(self, using: str) -> None:
        super().__init__(using)
        self._connection = PostgresConnection(using)
        # the streams that this process numbers
        self._leadership = StreamLeadership(self._connection.fetch)
        # None until it is known whether there is the function
        self._statements: Statements | None = None
        # held while the connection is opened
        self._opening = asyncio.Lock()
        # the last message about the way in which events are numbered
        self._logged_way = ""
        # time until which the thread is used, by the event loop's clock
        self._use_thread_until = float("-inf")
        # streams that must be read by the next call
        self._requests: list[_Request] = []
        # the task that makes calls; None if there are no requests
        self._task: asyncio.Task[None] | None = None
        # time of the last call, by the event loop's clock
        self._called_at = float("-inf")
        self._is_closed = False

    async def fetch_new(
        self, collection: str, position: Position | None, *, notified: bool = False
    ) -> StreamBatch:
        """Do the same as `ThreadReader.fetch_new`, without a thread if possible."""
        page = None
        if not (self._is_ready and self._leadership.was_tried(collection)):
            await self._again_if_lost(partial(self._lead, collection))
        if collection_with_values(collection) is None:
            page = await self._read(collection, position)
        if page is None:
            return await super().fetch_new(collection, position, notified=notified)
        decode = partial(
            changes_from_rows,
            self.using,
            page.rows,
            epoch=page.epoch,
            seqs=[row[1] for row in page.rows],
        )
        by_column = any(is_by_column(text) for row in page.rows for text in row[6:8])
        changes = await self.run(decode) if by_column else decode()
        seq = page.rows[-1][1] if page.rows else page.head
        is_behind = position is not None and position.epoch == page.epoch and seq < page.head
        more = page.unfinished or is_behind
        return StreamBatch(page.epoch, page.floor, page.start, page.head, changes, more)

    async def _lead(self, collection: str) -> None:
        if await self._ensure_open():
            await self._leadership.acquire([collection])

    async def _read(self, collection: str, position: Position | None) -> StreamRows | None:
        """Return what the function returns for a stream; None if the thread must be used."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._use_thread_until:
            return None
        request = _Request(collection, position, loop.create_future())
        self._requests.append(request)
        if self._task is None:
            self._task = spawn_task(self._serve())
        return await request.rows

    async def _serve(self) -> None:
        """Make calls until there are no more requests."""
        loop = asyncio.get_running_loop()
        try:
            while self._requests:
                delay = self._called_at + CALL_INTERVAL - loop.time()
                if delay > 0:
                    await asyncio.sleep(delay)
                self._called_at = loop.time()
                requests = [r for r in self._requests if not r.rows.done()]
                self._requests.clear()
                try:
                    pages = await self._again_if_lost(partial(self._call, requests))
                except Exception as error:
                    _fail(requests, error)
                else:
                    for request in requests:
                        if not request.rows.done():
                            request.rows.set_result(pages.get(request.collection))
        finally:
            self._task = None
            _fail(self._requests, ConnectionError("The reader was stopped."))
            self._requests.clear()

    async def _again_if_lost(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of a call; call again if a connection was lost that had been idle."""
        was_open = self._connection.is_open
        try:
            return await call()
        except psycopg.OperationalError as error:
            if not was_open or self._is_closed or error.sqlstate not in _LOST:
                raise
        return await call()

    async def _call(self, requests: Sequence[_Request]) -> dict[str, StreamRows]:
        """Number and read streams; those that are left out must be read by the thread."""
        if not requests or not await self._ensure_open():
            return {}
        assert self._statements is not None
        parameters = postgres_numbering.follow_parameters(
            [(r.collection, r.position, related_stream(self.using, r.collection)) for r in requests]
        )
        text = await self._connection.call(self._statements.follow, parameters)
        try:
            return postgres_numbering.decode_result(text)
        except (ValueError, RecursionError) as error:
            # an image is damaged; it is not known which
            logger.warning("Events of the log cannot be read together: %s", error)
            return {}

    async def _ensure_open(self) -> bool:
        """Open the connection if it is not open; return False if the thread must be used."""
        if self._is_ready:
            return True
        async with self._opening:
            loop = asyncio.get_running_loop()
            if self._is_ready:
                return True
            if loop.time() < self._use_thread_until:
                return False
            reason = await self._open()
            if reason is not None:
                self._use_thread_until = loop.time() + RETRY_INTERVAL
            self._log_way(reason)
            return reason is None

    def _log_way(self, reason: str | None) -> None:
        """Log in which way events are numbered, unless it is the same as before."""
        way = "by a function, without a thread"
        if reason is not None:
            way = f"by the ORM, in a thread, because {reason}"
        if way != self._logged_way:
            self._logged_way = way
            logger.info("Events in database %r are numbered %s.", self.using, way)

    @property
    def _is_ready(self) -> bool:
        """Whether the connection is open, and the function was found on it."""
        return self._connection.is_open and self._statements is not None

    async def _open(self) -> str | None:
        """Open the connection; return the reason if it cannot be used, and None if it can."""
        self._statements = None
        try:
            await self._connection.open()
        except ConnectionPooled:
            return POOLED
        self._statements = await postgres_numbering.find_function(self._connection.fetch)
        if self._statements is None:
            self._connection.drop()
            return NOT_INSTALLED
        self._leadership.reset(self._statements.schema)
        return None

    async def find_behind(self, positions: Mapping[str, Position]) -> set[str]:
        """Do the same as `ThreadReader.find_behind`; try to be the leader of the streams."""
        behind = await self._again_if_lost(partial(self._find_behind, positions))
        return await super().find_behind(positions) if behind is None else behind

    async def _find_behind(self, positions: Mapping[str, Position]) -> set[str] | None:
        if not await self._ensure_open():
            return None
        assert self._statements is not None
        await self._leadership.acquire(positions, again=True)
        rows = await self._connection.fetch(
            self._statements.find_behind,
            postgres_numbering.parameters(list(positions.items())),
            timeout=ANSWER_TIMEOUT,
        )
        return {name for (name,) in rows}

    def is_leader(self, collection: str) -> bool | None:
        """Return whether this process holds the lock of a stream; None if a thread numbers it."""
        if self._statements is None:
            return None
        return self._is_ready and collection in self._leadership

    async def reason_for_thread(self) -> str | None:
        """Return why a thread numbers the events; None if no thread is needed."""
        return await self._open()

    def release(self, collection: str) -> None:
        """Let another process number the events of a stream that is no longer followed."""
        released = self._leadership.release(collection)
        if released is not None:
            spawn_task(_complete(released))

    def close(self) -> None:
        """End the thread and close connections, without waiting."""
        super().close()
        self._is_closed = True
        self._connection.close()


async def _complete(released: Awaitable[object]) -> None:
    with suppress(psycopg.Error, TimeoutError):  # the end of the connection has released the lock
        await released


def _fail(requests: Sequence[_Request], error: Exception) -> None:
    for request in requests:
        if not request.rows.done():
            request.rows.set_exception(error)
