"""Tasks that go on to their end, whoever began them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()


def spawn_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that nobody need hold: event loops themselves hold tasks but weakly."""
    task = asyncio.get_running_loop().create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


async def run_shielded(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns. Where whoever waits for it is cancelled it goes on all the same."""
    return await asyncio.shield(spawn_task(work))
