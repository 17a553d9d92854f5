"""Requests start in turns, so that an event loop comes back to its sockets soon."""

import asyncio

import pytest

from django_cocobase_realtime.consumers.request_turns import (
    STARTS_PER_ITERATION,
    Stage,
    wait_for_turn,
)

CONNECT, REQUEST = Stage.CONNECT, Stage.REQUEST


class Requests:
    """Requests that note the order in which they start."""

    def __init__(self):
        self.started = []

    async def start(self, stage, number):
        await wait_for_turn(stage)
        self.started.append((stage, number))

    def of(self, stage):
        return [number for started, number in self.started if started is stage]

    def begin(self, stage, count):
        return [asyncio.create_task(self.start(stage, number)) for number in range(count)]


@pytest.fixture
async def requests():
    return Requests()


async def test_few_requests_of_each_stage_start_in_an_iteration(requests):
    tasks = [task for stage in Stage for task in requests.begin(stage, 20)]
    before = dict.fromkeys(Stage, 0)
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        for stage in Stage:
            count = len(requests.of(stage))
            assert count - before[stage] <= STARTS_PER_ITERATION[stage]
            before[stage] = count
    for stage in Stage:
        assert requests.of(stage) == list(range(20))


async def test_request_does_not_wait_if_there_are_few(requests):
    for number in range(STARTS_PER_ITERATION[REQUEST]):
        with pytest.raises(StopIteration):  # the coroutine ends without waiting
            requests.start(REQUEST, number).send(None)


async def test_stages_do_not_wait_for_each_other(requests):
    many = requests.begin(CONNECT, 100)
    await asyncio.sleep(0)
    with pytest.raises(StopIteration):
        requests.start(REQUEST, 0).send(None)
    await asyncio.gather(*many)


async def test_cancelled_request_takes_no_turn(requests):
    tasks = requests.begin(CONNECT, 20)
    await asyncio.sleep(0)
    for task in tasks[2:18]:
        task.cancel()
    for _ in range(4):
        await asyncio.sleep(0)
    assert requests.of(CONNECT) == [0, 1, 18, 19]


async def test_requests_in_progress_take_no_turns(requests):
    """One that waits for a slow database does not delay others."""
    blocked = asyncio.Event()

    async def wait():
        await wait_for_turn(REQUEST)
        await blocked.wait()

    tasks = [asyncio.create_task(wait()) for _ in range(50)]
    for _ in range(50):
        await asyncio.sleep(0)
    await asyncio.wait_for(requests.start(REQUEST, 0), 1)
    blocked.set()
    await asyncio.gather(*tasks)


def test_each_event_loop_has_its_own_turns():
    for _ in range(2):
        asyncio.run(asyncio.wait_for(Requests().start(REQUEST, 0), 1))
