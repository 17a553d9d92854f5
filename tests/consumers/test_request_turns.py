"""Requests start in turns, so that an event loop comes back to its sockets soon."""

import asyncio

import pytest

from django_cocobase_realtime.consumers import request_turns
from django_cocobase_realtime.consumers.request_turns import (
    LONG_ITERATION,
    MAX_STARTS,
    MIN_STARTS,
    Stage,
    wait_for_turn,
)

CONNECT, REQUEST = Stage.CONNECT, Stage.REQUEST


class Clock:
    """The time of the event loop, which passes only while requests start."""

    now = 0.0

    def __call__(self):
        return self.now


class Requests:
    """Requests that note the order in which they start, and take some time of a clock then."""

    def __init__(self, seconds=0.0, clock=None):
        self.started = []
        self.seconds = seconds
        self.clock = clock or Clock()

    async def start(self, stage, number):
        await wait_for_turn(stage)
        self.clock.now += self.seconds
        self.started.append((stage, number))

    def of(self, stage):
        return [number for started, number in self.started if started is stage]

    def begin(self, stage, count):
        return [asyncio.create_task(self.start(stage, number)) for number in range(count)]


@pytest.fixture
async def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


@pytest.fixture
async def requests():
    return Requests()


@pytest.fixture
def _few(monkeypatch):
    """Let few requests start in each iteration, however short it is."""
    monkeypatch.setattr(request_turns, "MAX_STARTS", MIN_STARTS)


async def starts_per_iteration(requests, tasks, stage=REQUEST):
    """Return how many requests of a stage start in each iteration, until all have ended."""
    counts, before = [], 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        counts.append(len(requests.of(stage)) - before)
        before += counts[-1]
    return counts


async def test_requests_start_in_the_order_of_their_arrival(requests):
    tasks = [task for stage in Stage for task in requests.begin(stage, 100)]
    assert max(await starts_per_iteration(requests, tasks)) <= MAX_STARTS
    for stage in Stage:
        assert requests.of(stage) == list(range(100))


async def test_few_requests_start_if_iterations_take_long(clock):
    requests = Requests(LONG_ITERATION / 4, clock)
    counts = await starts_per_iteration(requests, requests.begin(REQUEST, 100))
    assert max(counts) == MAX_STARTS
    assert max(counts[-8:]) <= MAX_STARTS / 4


async def test_more_requests_start_again_if_iterations_are_short(clock):
    slow = Requests(1.2 * LONG_ITERATION, clock)
    counts = await starts_per_iteration(slow, slow.begin(REQUEST, 80))
    assert max(counts[-5:]) == MIN_STARTS
    quick = Requests()
    counts = await starts_per_iteration(quick, quick.begin(REQUEST, 500))
    assert max(counts) == MAX_STARTS
    assert counts.index(MAX_STARTS) > 5


@pytest.mark.usefixtures("_few")
async def test_request_does_not_wait_if_there_are_few(requests):
    for number in range(MIN_STARTS):
        with pytest.raises(StopIteration):  # the coroutine ends without waiting
            requests.start(REQUEST, number).send(None)


@pytest.mark.usefixtures("_few")
async def test_stages_do_not_wait_for_each_other(requests):
    many = requests.begin(CONNECT, 100)
    await asyncio.sleep(0)
    with pytest.raises(StopIteration):
        requests.start(REQUEST, 0).send(None)
    await asyncio.gather(*many)


@pytest.mark.usefixtures("_few")
async def test_cancelled_request_takes_no_turn(requests):
    tasks = requests.begin(CONNECT, 20)
    await asyncio.sleep(0)
    for task in tasks[2:18]:
        task.cancel()
    for _ in range(4):
        await asyncio.sleep(0)
    assert requests.of(CONNECT) == [0, 1, 18, 19]


@pytest.mark.usefixtures("_few")
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
