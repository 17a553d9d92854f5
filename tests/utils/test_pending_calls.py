"""Calls in other threads go on if the task that waits for them is cancelled."""

import asyncio

import pytest

from django_cocobase_realtime.utils.pending_calls import PendingCalls


async def test_call_of_a_cancelled_task_is_waited_for():
    calls, released, results = PendingCalls(), asyncio.Event(), []

    async def call():
        await released.wait()
        results.append("done")

    task = asyncio.create_task(calls.run(call()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await calls.wait(0.01)
    assert results == []
    released.set()
    await calls.wait(5)
    assert results == ["done"]
    await calls.wait(0)


async def test_result_and_exception_are_those_of_the_call():
    async def fail():
        raise ValueError("no")

    calls = PendingCalls()
    assert await calls.run(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(ValueError, match="no"):
        await calls.run(fail())
