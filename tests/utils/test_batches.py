"""Items that are handled together in one call of a worker thread."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from django_cocobase_realtime.utils import batches as module
from django_cocobase_realtime.utils.batches import MAX_ITEMS, Batches
from django_cocobase_realtime.utils.workers import FairWorkers

TIMEOUT = 20  # seconds, plenty for a slow machine


class Calls:
    """A function that records its calls, each of which waits until `release` is set."""

    def __init__(self) -> None:
        self.made: list[list[Any]] = []
        self.release = threading.Event()

    def __call__(self, items: list[Any]) -> list[Any]:
        self.made.append(items)
        self.release.wait(TIMEOUT)
        return items

    async def wait(self, number: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while len(self.made) < number:
                await asyncio.sleep(0.001)


@pytest.fixture
def workers() -> Iterator[FairWorkers]:
    workers = FairWorkers("test", lambda: 2)
    yield workers
    workers.close()


@pytest.fixture
def calls() -> Iterator[Calls]:
    calls = Calls()
    yield calls
    calls.release.set()


def start(batches: Batches, call: Any, *items: tuple[str, Any], key: Any = "k") -> list[Any]:
    return [asyncio.create_task(batches.run(account, key, call, item)) for account, item in items]


async def test_items_of_one_moment_are_handled_in_one_call(workers, calls):
    batches = Batches(workers, lambda: 2)
    calls.release.set()
    tasks = start(batches, calls, ("a", 1), ("b", 2), ("a", 3))
    assert await asyncio.gather(*tasks) == [1, 2, 3]
    assert [sorted(items) for items in calls.made] == [[1, 2, 3]]


async def test_each_account_has_its_turn(workers, calls, monkeypatch):
    monkeypatch.setattr(module, "SLOW_SECONDS", TIMEOUT)
    batches = Batches(workers, lambda: 2)
    tasks = start(batches, calls, ("first", 0))
    await calls.wait(1)
    tasks += start(batches, calls, *(("many", n) for n in range(3 * MAX_ITEMS)))
    tasks += start(batches, calls, ("one", "one"))
    await asyncio.sleep(0)
    calls.release.set()
    await asyncio.gather(*tasks)
    assert calls.made[1][:2] == [0, "one"]
    assert [len(items) for items in calls.made] == [1, MAX_ITEMS, MAX_ITEMS, MAX_ITEMS, 1]


async def test_slow_call_has_another_beside_it(workers, calls):
    batches = Batches(workers, lambda: 2)
    tasks = start(batches, calls, ("a", 1))
    await calls.wait(1)
    tasks += start(batches, calls, ("a", 2))
    await calls.wait(2)
    tasks += start(batches, calls, ("a", 3))
    await asyncio.sleep(2 * module.SLOW_SECONDS)
    assert calls.made == [[1], [2]]  # not more than there may be
    calls.release.set()
    assert await asyncio.gather(*tasks) == [1, 2, 3]


async def test_items_wait_for_a_call_that_is_not_slow(workers, calls, monkeypatch):
    monkeypatch.setattr(module, "SLOW_SECONDS", TIMEOUT)
    batches = Batches(workers, lambda: 2)
    tasks = start(batches, calls, ("a", 1))
    await calls.wait(1)
    for n in (2, 3):
        tasks += start(batches, calls, ("a", n))
        await asyncio.sleep(0.01)
    calls.release.set()
    await asyncio.gather(*tasks)
    assert calls.made == [[1], [2, 3]]


async def test_items_with_other_keys_are_handled_apart(workers, calls):
    batches = Batches(workers, lambda: 2)
    calls.release.set()
    tasks = start(batches, calls, ("a", 1)) + start(batches, calls, ("a", 2), key="other")
    assert await asyncio.gather(*tasks) == [1, 2]
    assert calls.made == [[1], [2]]


async def test_item_of_a_cancelled_task_is_dropped(workers, calls, monkeypatch):
    monkeypatch.setattr(module, "SLOW_SECONDS", TIMEOUT)
    batches = Batches(workers, lambda: 2)
    tasks = start(batches, calls, ("a", 1))
    await calls.wait(1)
    dropped, kept = start(batches, calls, ("a", 2), ("a", 3))
    await asyncio.sleep(0)
    for task in (dropped, tasks[0]):
        task.cancel()
    await asyncio.sleep(0)
    calls.release.set()
    assert await kept == 3
    assert calls.made == [[1], [3]]


async def test_exceptions(workers):
    def one_fails(items):
        return [ValueError() if item == 2 else item for item in items]

    def all_fail(items):
        raise KeyError

    batches = Batches(workers, lambda: 2)
    for call, expected in ((one_fails, [int, ValueError]), (all_fail, [KeyError, KeyError])):
        tasks = start(batches, call, ("a", 1), ("a", 2), key=call)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == expected


async def test_workers_that_are_closed_fail_the_items(workers, calls):
    batches = Batches(workers, lambda: 2)
    workers.close()
    with pytest.raises(RuntimeError):
        await batches.run("a", "k", calls, 1)


def test_event_loop_is_not_kept(workers, calls):
    calls.release.set()

    async def main() -> tuple[Any, Batches]:
        batches = Batches(workers, lambda: 2)
        await batches.run("a", "k", calls, 1)
        return weakref.ref(asyncio.get_running_loop()), batches

    loop, batches = asyncio.run(main())
    gc.collect()
    assert loop() is None
    assert batches is not None


async def test_calls_leave_nothing_behind_in_the_queue_of_the_workers(workers, calls):
    calls.release.set()
    batches = Batches(workers, lambda: 2)
    for _ in range(10):
        await batches.run("a", "k", calls, 1)
    assert len(workers._queue._accounts) <= 1  # that of the last call, whose thread may not be done
