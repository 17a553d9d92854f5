"""Timeouts of the same duration share one timer."""

import asyncio

import pytest

from django_cocobase_realtime.utils.timeouts import Deadlines


async def test_wait_returns_result_or_times_out():
    deadlines = Deadlines.current()
    assert await deadlines.wait(asyncio.sleep(0, "done"), 5) == "done"
    began = asyncio.get_running_loop().time()

    async def wait(seconds, deadline):
        try:
            return await deadlines.wait(asyncio.sleep(seconds, "done"), deadline)
        except TimeoutError:
            return asyncio.get_running_loop().time() - began

    first, second, third, other = await asyncio.gather(
        wait(0.05, 0.2), wait(5, 0.2), wait(5, 0.2), wait(5, 0.1)
    )
    assert first == "done"
    assert 0.2 <= second < 2
    assert 0.2 <= third < 2
    assert 0.1 <= other < 2
    assert Deadlines.current() is deadlines
    await asyncio.sleep(0.3)
    assert set(deadlines._waits) <= {5}


async def test_wait_can_be_cancelled():
    task = asyncio.create_task(Deadlines.current().wait(asyncio.sleep(5), 10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_each_event_loop_has_its_own_deadlines():
    async def wait_once():
        assert await Deadlines.current().wait(asyncio.sleep(0, 1), 1) == 1

    asyncio.run(wait_once())
    asyncio.run(wait_once())
