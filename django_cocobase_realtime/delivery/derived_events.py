"""Derives events in this process: documents are updated when rows change that they show.

All processes that follow a hidden stream do so, since each of them may be the last one. The leader
of the stream begins at once, and the others after the time in which it normally has finished.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from ..declarations.dependency_table import hidden_stream
from ..declarations.registry import registry
from ..events import Change, Event, LogAppended
from ..log.derived import derive
from ..utils.concurrency import set_owner
from ..utils.fair_queue import Owner
from .tailer import LEADER_TIMEOUT, RETRY_INTERVAL

logger = logging.getLogger(__name__)


class DerivedEvents:
    """Derives events from the changes in hidden streams. Belongs to one event loop.

    ``run`` calls a function in the thread that reads the log of a database. ``is_leader`` returns
    whether this process numbers the changes of the hidden stream of a database. ``notify`` is
    called with each stream that has new events, and ``announce`` with what other processes must
    know.
    """

    def __init__(
        self,
        *,
        run: Callable[..., Awaitable[Any]],
        is_leader: Callable[[str], bool],
        notify: Callable[[str], None],
        announce: Callable[[Event], None],
    ) -> None:
        self._run = run
        self._is_leader = is_leader
        self._notify = notify
        self._announce = announce
        # the last derivation, and the one that begins after it, by alias of the database
        self._running: dict[str, asyncio.Task[None]] = {}
        self._next: dict[str, asyncio.Task[None]] = {}
        # tasks that derive after changes have arrived, by alias of the database
        self._later: dict[str, asyncio.Task[None]] = {}

    def after(
        self, handle: Callable[[str, list[Change]], Awaitable[None]]
    ) -> Callable[[str, list[Change]], Awaitable[None]]:
        """Return a function that handles changes of related rows and derives events from them."""

        async def handle_and_derive(using: str, changes: list[Change]) -> None:
            await handle(using, changes)
            self.request(using)

        return handle_and_derive

    def after_loss(self, handle: Callable[[str], None]) -> Callable[[str], None]:
        """Return a function that does the same if changes were missed."""

        def handle_and_derive(using: str) -> None:
            handle(using)
            self.request(using)

        return handle_and_derive

    def request(self, using: str) -> None:
        """Derive events soon, because related rows have changed."""
        if using not in self._later and registry.showing_related(using):
            loop = asyncio.get_running_loop()
            self._later[using] = loop.create_task(self._derive_later(using))

    async def catch_up(self, using: str) -> None:
        """Wait until events are derived from all changes that were committed before this call.

        Raises the exceptions of the database.
        """
        if not registry.showing_related(using):
            return
        task = self._next.get(using)
        if task is None:
            previous = self._running.get(using)
            task = asyncio.get_running_loop().create_task(self._derive(using, previous))
            task.add_done_callback(_retrieve_exception)
            self._next[using] = task
        await asyncio.shield(task)

    def stop(self) -> None:
        """Stop deriving events."""
        for tasks in (self._later, self._next, self._running):
            for task in tasks.values():
                task.cancel()

    async def _derive_later(self, using: str) -> None:
        set_owner(Owner(hidden_stream(using)), hidden_stream(using))
        try:
            if not self._is_leader(using):
                await asyncio.sleep(LEADER_TIMEOUT * (1 + random.random()))  # noqa: S311
        finally:
            # a request from now on is one for changes that may come too late for this one
            del self._later[using]
        try:
            await self.catch_up(using)
        except Exception as error:
            logger.warning("Events cannot be derived from changes in %r: %r", using, error)
            await asyncio.sleep(RETRY_INTERVAL)
            self.request(using)

    async def _derive(self, using: str, previous: asyncio.Task[None] | None) -> None:
        if previous is not None:
            await asyncio.wait([previous])
        self._running[using] = self._next.pop(using)
        for stream in await self._run(using, derive, using):
            self._announce(LogAppended(stream, numbered=True))
            self._notify(stream)


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    """Note the exception of a task, for which there may be no caller any more."""
    if not task.cancelled():
        task.exception()
