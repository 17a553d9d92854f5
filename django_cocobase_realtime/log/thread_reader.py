"""Reading of the log by the ORM, in a thread. This works with every database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from ..utils.concurrency import DatabaseThread
from .cursor import Position
from .reader import StreamBatch, fetch_new, streams_behind

P = ParamSpec("P")
T = TypeVar("T")


class ThreadReader:
    """Numbers and reads the events of the streams in one database, for one event loop."""

    def __init__(self, using: str) -> None:
        # alias of the database
        self.using = using
        self._thread = DatabaseThread(using)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that uses the ORM, and return its result."""
        return await self._thread.run(function, *args, **kwargs)

    async def fetch_new(
        self, collection: str, position: Position | None, *, notified: bool = False
    ) -> StreamBatch:
        """Number the events of a stream that have no number, and return those after ``position``.

        Without a position, the batch contains no events. With ``notified`` there are known to be
        events without a number. Raises the exceptions of the database.
        """
        return await self.run(fetch_new, self.using, collection, position, notified)

    async def find_behind(self, positions: Mapping[str, Position]) -> set[str]:
        """Return the streams that are not at these positions, or have events without a number.

        ``positions`` are those of all streams that are followed. Called regularly.
        """
        return await self.run(streams_behind, self.using, positions)

    def is_leader(self, collection: str) -> bool | None:
        """Return None: the database does not choose a leader."""
        return None

    async def reason_for_thread(self) -> str | None:
        """Return why a thread numbers the events."""
        return "the engine, the driver or the pool of connections does not allow anything else"

    def release(self, collection: str) -> None:
        """Do nothing: there is no leader."""

    def close(self) -> None:
        """End the thread and close connections, without waiting."""
        self._thread.close()
