"""An event loop in virtual time: timers run in their order, and no time passes."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

# seconds since 1970 at which virtual time begins
EPOCH = 1_800_000_000.0
# the shortest delay of a timer, in seconds
RESOLUTION = 1e-6


class VirtualSelector(selectors.BaseSelector):
    """A selector that never waits: if the loop has nothing to do, time jumps to its next timer."""

    def __init__(self) -> None:
        # virtual seconds since the beginning
        self.now = 0.0
        # the time at which the loop must stop
        self.until = 0.0
        # returns whether the loop must stop before its next timer
        self.is_interrupted: Callable[[], bool] = lambda: False
        # stops the loop
        self.stop: Callable[[], None] = lambda: None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is not None and timeout <= 0:
            return []
        # the loop is idle until its next timer
        due = None if timeout is None else self.now + timeout
        if self.is_interrupted():
            self.stop()
        elif due is None or due > self.until:
            self.now = max(self.now, self.until)
            self.stop()
        else:
            self.now = due
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only in `run`."""

    def __init__(self) -> None:
        self.virtual = VirtualSelector()
        super().__init__(self.virtual)
        self.virtual.stop = self.stop

    def time(self) -> float:
        return self.virtual.now

    def wall_time(self) -> float:
        """Return seconds since 1970."""
        return EPOCH + self.virtual.now

    def call_later(self, delay: float, callback: Any, *args: Any, **options: Any) -> Any:
        # a real clock advances between two calls: without this, a timer for the rest of a rounding
        # error could be set again without end
        return super().call_later(max(delay, RESOLUTION), callback, *args, **options)

    def run(self, until: float, is_interrupted: Callable[[], bool]) -> None:
        """Run everything that is due by ``until``; return early as soon as it is interrupted."""
        self.virtual.until = until
        self.virtual.is_interrupted = is_interrupted
        self.run_forever()


@contextmanager
def virtual_time(loop: VirtualLoop) -> Iterator[None]:
    """Let the functions of the module ``time`` return the time of a loop."""
    with (
        mock.patch.object(time, "time", loop.wall_time),
        mock.patch.object(time, "monotonic", loop.time),
        mock.patch.object(time, "perf_counter", loop.time),
    ):
        yield
