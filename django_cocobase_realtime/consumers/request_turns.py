"""Turns of the requests of all clients, so that many at once do not delay events.

An event loop runs everything that is ready before it looks at its sockets again. If a thousand
clients come back together, that takes long, and an event needs several such iterations from its
commit to its clients. So if iterations take long, only some requests start in each of them, in the
order of their arrival. How many are in progress is not limited: those that wait for a database or
for the project's code take no turns.

Each stage of a client has its own turns. So those who come first can subscribe while others are
still connecting, and clients that send many requests do not keep others from connecting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum
from weakref import WeakKeyDictionary


class Stage(Enum):
    """The stages of a connection."""

    CONNECT = 0
    AUTHENTICATE = 1
    REQUEST = 2


# seconds that an iteration of an event loop may take before fewer requests start in the next one
LONG_ITERATION = 0.01
# how many requests of each stage start in an iteration: not less and not more than this
MIN_STARTS, MAX_STARTS = 2, 32


class RequestTurns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        # how many requests of each stage may start in an iteration
        self._limit = MAX_STARTS
        # requests that have started in this iteration
        self._started = dict.fromkeys(Stage, 0)
        # requests that wait for a later iteration
        self._waiting: dict[Stage, deque[asyncio.Future[None]]] = {s: deque() for s in Stage}
        # whether `_begin_iteration` will be called
        self._is_scheduled = False
        # the event loop's time of the last call
        self._began_at = 0.0

    async def wait(self, stage: Stage) -> None:
        """Wait until a request may start."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting[stage]
        if self._started[stage] < self._limit and not waiting:
            self._started[stage] += 1
            if not self._is_scheduled:
                self._is_scheduled = True
                self._began_at = loop.time()
                loop.call_soon(self._begin_iteration)
            return
        turn = loop.create_future()
        waiting.append(turn)
        await turn

    def _begin_iteration(self) -> None:
        loop = asyncio.get_running_loop()
        self._adjust(loop.time())
        for stage, waiting in self._waiting.items():
            self._started[stage] = 0
            while waiting and self._started[stage] < self._limit:
                turn = waiting.popleft()
                if not turn.done():  # its task was not cancelled
                    turn.set_result(None)
                    self._started[stage] += 1
        self._is_scheduled = any(self._started.values())
        if self._is_scheduled:
            loop.call_soon(self._begin_iteration)

    def _adjust(self, now: float) -> None:
        """Let fewer requests start if the last iteration took long, and more if not."""
        if now - self._began_at > LONG_ITERATION:
            self._limit = max(self._limit // 2, MIN_STARTS)
        else:
            self._limit = min(self._limit + MIN_STARTS, MAX_STARTS)
        self._began_at = now


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, RequestTurns] = WeakKeyDictionary()


async def wait_for_turn(stage: Stage) -> None:
    """Wait until a request may start in the running event loop."""
    loop = asyncio.get_running_loop()
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = RequestTurns()
    await turns.wait(stage)
