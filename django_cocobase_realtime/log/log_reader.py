"""The interface by which the streams of one database are followed, and the choice between readers.

`ThreadReader` works with every database. `PostgresReader` needs less time, and uses a thread itself
for what it cannot do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import ParamSpec, Protocol, TypeVar

from django.db import connections

from .cursor import Position
from .reader import StreamBatch
from .thread_reader import ThreadReader

P = ParamSpec("P")
T = TypeVar("T")


class LogReader(Protocol):
    """Numbers and reads the events of the streams in one database, for one event loop.

    Order
        A batch contains events in the order of their numbers, without gaps.
    Completeness
        It contains, or is followed by, all events that were committed before `fetch_new` was
        called.
    """

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that uses the ORM, in a thread, and return its result."""

    async def fetch_new(
        self, collection: str, position: Position | None, *, notified: bool = False
    ) -> StreamBatch:
        """Number the events of a stream that have no number, and return those after ``position``.

        Without a position, the batch contains no events. With ``notified`` there are known to be
        events without a number. Raises the exceptions of the database, or ``TimeoutError``.
        """

    async def find_behind(self, positions: Mapping[str, Position]) -> set[str]:
        """Return the streams that are not at these positions, or have events without a number.

        ``positions`` are those of all streams that are followed. Called regularly.
        """

    def is_leader(self, collection: str) -> bool | None:
        """Return whether this process is the one that must number the events of a stream.

        If not, another process does so, and announces them. `fetch_new` numbers them anyway. None
        if the database does not choose one.
        """

    async def reason_for_thread(self) -> str | None:
        """Return why a thread numbers the events; None if no thread is needed."""

    def release(self, collection: str) -> None:
        """Let another process number the events of a stream that is no longer followed."""

    def close(self) -> None:
        """End threads and close connections, without waiting."""


def create_reader(using: str) -> LogReader:
    """Return the reader for the streams of a database."""
    if connections[using].vendor == "postgresql" and find_spec("psycopg") is not None:
        from . import postgres_connection, postgres_reader  # these need psycopg 3

        if postgres_connection.is_supported(using):
            return postgres_reader.PostgresReader(using)
    return ThreadReader(using)


async def reason_for_thread(using: str) -> str | None:
    """Return why the events of a PostgreSQL database are numbered in a thread; None if not.

    Raises the exceptions of psycopg.
    """
    reader = create_reader(using)
    try:
        return await reader.reason_for_thread()
    finally:
        reader.close()
