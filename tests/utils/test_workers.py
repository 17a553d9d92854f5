"""Worker threads that share their time fairly. These tests use real threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from django_cocobase_realtime.utils.fair_queue import (
    MAX_WAITING_PER_CONNECTION,
    SERVER,
    FairQueue,
    Job,
    Owner,
    WorkersOverloaded,
)
from django_cocobase_realtime.utils.workers import FairWorkers

TIMEOUT = 30  # seconds, plenty for a slow machine
ADA, BOB, EVE = Owner("ada", 1), Owner("bob", 2), Owner("eve", 3)


class Recorder:
    """Workers, and the names of the calls that began, in their order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.workers = FairWorkers("test", lambda: self.size)
        self.began: list[Any] = []
        self.gates: list[threading.Event] = []
        self.jobs: list[Job] = []

    def submit(
        self, name: Any, owner: Owner = SERVER, subject: Hashable = None, seconds: float = 0
    ) -> Job:
        def call() -> Any:
            self.began.append(name)
            time.sleep(seconds)
            return name

        self.jobs.append(self.workers.submit(call, owner, subject))
        return self.jobs[-1]

    def block(self, owner: Owner, subject: Hashable = None) -> threading.Event:
        """Occupy a thread until the event is set."""
        gate, entered = threading.Event(), threading.Event()
        self.gates.append(gate)

        def call() -> None:
            entered.set()
            gate.wait(TIMEOUT)

        self.jobs.append(self.workers.submit(call, owner, subject))
        assert entered.wait(TIMEOUT)
        return gate

    def wait(self) -> None:
        for job in self.jobs:
            if not job.future.cancelled():
                job.future.result(TIMEOUT)

    def threads(self) -> list[threading.Thread]:
        return list(self.workers._threads)


@pytest.fixture
def recorder() -> Iterator[Callable[[int], Recorder]]:
    recorders: list[Recorder] = []

    def make(size: int) -> Recorder:
        recorders.append(Recorder(size))
        return recorders[-1]

    yield make
    for made in recorders:
        for gate in made.gates:
            gate.set()
        made.workers.close()


def test_call_returns_its_result_and_exception(recorder):
    workers = recorder(2).workers
    assert workers.submit(lambda: 3).future.result(TIMEOUT) == 3
    with pytest.raises(ZeroDivisionError):
        workers.submit(lambda: 1 / 0).future.result(TIMEOUT)


def test_newcomer_is_next_after_many_calls_of_another_account(recorder):
    pool = recorder(1)
    gate = pool.block(ADA)
    for n in range(100):
        pool.submit(("ada", n), ADA, seconds=0.001)
    pool.submit("bob", BOB)
    gate.set()
    pool.wait()
    assert pool.began.index("bob") == 0
    assert [n for name, n in (b for b in pool.began if b != "bob")] == list(range(100))


def test_accounts_get_the_same_time_not_the_same_number_of_calls():
    queue, now, began = FairQueue(), 0.0, []
    for _ in range(5):
        queue.add(Job(int, ADA, "slow"), now)
    for _ in range(50):
        queue.add(Job(int, BOB, "fast"), now)
    while (job := queue.start_next(now, 1)) is not None:
        began.append(job.subject)
        now += 0.05 if job.subject == "slow" else 0.001
        queue.end(job, now)
    # while the second of the slow ones ran, none of the others had used as much time
    third_slow = [n for n, name in enumerate(began) if name == "slow"][2]
    assert began[:third_slow].count("fast") >= 40


def test_account_that_was_idle_cannot_catch_up_on_time():
    """It begins with the time of the one that was served last, and is not served alone."""
    queue, now = FairQueue(), 0.0

    def run(owner: Owner, seconds: float) -> None:
        nonlocal now
        queue.add(Job(int, owner), now)
        job = queue.start_next(now, 1)
        assert job is not None
        now += seconds
        queue.end(job, now)

    run(BOB, 1)
    for _ in range(100):
        run(ADA, 1)
    for owner in (ADA, BOB):
        for _ in range(20):
            queue.add(Job(int, owner), now)
    served = []
    for _ in range(20):
        job = queue.start_next(now, 1)
        assert job is not None
        served.append(job.owner.account)
        now += 1
        queue.end(job, now)
    assert 9 <= served.count("bob") <= 11
    assert served[0] == "bob"


def test_connections_of_an_account_take_turns(recorder):
    pool = recorder(1)
    gate = pool.block(SERVER)
    for _ in range(50):
        pool.submit("first tab", Owner("ada", 1), seconds=0.001)
    pool.submit("second tab", Owner("ada", 2))
    gate.set()
    pool.wait()
    assert pool.began.index("second tab") <= 1


def test_connection_with_many_subjects_does_not_delay_another(recorder):
    pool = recorder(1)
    gate = pool.block(SERVER)
    for n in range(30):
        pool.submit("first tab", Owner("ada", 1), subject=n, seconds=0.001)
    pool.submit("second tab", Owner("ada", 2), subject="other")
    gate.set()
    pool.wait()
    assert pool.began.index("second tab") <= 1


def test_account_occupies_half_of_the_threads(recorder):
    pool = recorder(4)
    pool.block(ADA)
    pool.block(ADA)
    third = pool.submit("ada", ADA)
    assert pool.submit("bob", BOB).future.result(TIMEOUT) == "bob"
    time.sleep(0.05)
    assert not third.future.done()
    pool.gates[0].set()
    assert third.future.result(TIMEOUT) == "ada"


def test_subject_occupies_half_of_the_threads(recorder):
    pool = recorder(4)
    pool.block(ADA, "slow collection")
    pool.block(BOB, "slow collection")
    waiting = pool.submit("eve", EVE, "slow collection")
    assert pool.submit("other", EVE, "other collection").future.result(TIMEOUT) == "other"
    time.sleep(0.05)
    assert not waiting.future.done()
    pool.gates[1].set()
    assert waiting.future.result(TIMEOUT) == "eve"


def test_one_thread_serves_accounts_and_subjects_in_turn(recorder):
    pool = recorder(1)
    gate = pool.block(ADA, "slow collection")
    pool.submit("ada", ADA, "slow collection")
    pool.submit("bob", BOB, "other collection")
    gate.set()
    pool.wait()
    assert pool.began == ["bob", "ada"]


def test_two_calls_that_waited_for_one_begin(recorder):
    """One waits because of its account, the other because of its subject."""
    pool = recorder(4)
    pool.block(ADA, "collection")
    pool.block(ADA)
    pool.block(BOB, "collection")
    entered = threading.Barrier(3, timeout=TIMEOUT)
    for owner, subject in ((ADA, None), (EVE, "collection")):
        pool.jobs.append(pool.workers.submit(entered.wait, owner, subject))
    time.sleep(0.05)
    pool.gates[0].set()
    entered.wait()  # both run at once
    pool.gates[1].set()
    pool.gates[2].set()
    pool.wait()


def test_caller_with_a_result_does_not_find_the_thread_busy(recorder, monkeypatch):
    """Otherwise a hub that stops after the last call would not wait for its connection."""
    pool = recorder(1)
    found = []
    set_result = Future.set_result

    def record(self: Future[Any], result: Any) -> None:
        found.append((set(pool.workers._busy), pool.workers._queue._running))
        set_result(self, result)

    monkeypatch.setattr(Future, "set_result", record)
    pool.submit("one").future.result(TIMEOUT)
    assert found == [(set(), {})]


def test_each_thread_that_has_to_close_its_connections_does(recorder):
    """Also if others wait as well, which have none."""
    pool = recorder(4)
    for owner in (ADA, ADA, BOB, BOB):
        pool.block(owner)
    for gate in pool.gates:
        gate.set()
    pool.wait()
    pool.submit("one keeps")
    for _ in range(3):
        pool.wait()
        pool.workers.close_connections()
        deadline = time.monotonic() + TIMEOUT
        while pool.workers.is_closing_connections and time.monotonic() < deadline:
            time.sleep(0.001)
        assert not pool.workers._keeping
        pool.submit("one keeps")


def test_discarded_call_is_not_made(recorder):
    pool = recorder(1)
    gate = pool.block(ADA)
    discarded = [pool.submit("discarded", ADA, "subject") for _ in range(5)]
    pool.submit("kept", ADA, "subject")
    for job in discarded:
        pool.workers.discard(job)
        pool.workers.discard(job)
    assert pool.workers._queue.waiting == 1
    gate.set()
    pool.wait()
    assert pool.began == ["kept"]


def test_discarding_a_running_call_keeps_its_thread(recorder):
    pool = recorder(1)
    gate = pool.block(ADA)
    pool.workers.discard(pool.jobs[0])
    gate.set()
    assert pool.submit("next", BOB).future.result(TIMEOUT) == "next"


def test_connection_with_too_many_calls_is_refused(recorder):
    pool = recorder(1)
    pool.block(ADA)
    for _ in range(MAX_WAITING_PER_CONNECTION):
        pool.submit("ada", ADA)
    with pytest.raises(WorkersOverloaded):
        pool.submit("ada", ADA)
    pool.submit("second tab", Owner("ada", 2))
    pool.submit("bob", BOB)
    for _ in range(MAX_WAITING_PER_CONNECTION + 1):
        pool.submit("server")


def test_threads_are_started_when_needed_and_end_when_there_are_too_many(recorder):
    pool = recorder(4)
    for _ in range(20):
        pool.submit("one after the other").future.result(TIMEOUT)
    assert len(pool.threads()) <= 2
    for owner in (ADA, ADA, BOB, BOB):
        pool.block(owner)
    threads = pool.threads()
    assert len(threads) == 4
    pool.size = 1
    for gate in pool.gates:
        gate.set()
    pool.submit("after").future.result(TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while len(pool.threads()) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(pool.threads()) == 1
    assert pool.submit("still works").future.result(TIMEOUT) == "still works"


def test_thread_that_ends_leaves_the_next_call_to_another(recorder):
    pool = recorder(2)
    pool.block(ADA)
    pool.block(BOB)
    waiting = pool.submit("ada", ADA)
    pool.gates[1].set()  # this thread is idle, since the account occupies half of them
    pool.jobs[1].future.result(TIMEOUT)
    time.sleep(0.1)
    pool.workers._size = 1  # as the next call would find it
    pool.gates[0].set()
    assert waiting.future.result(TIMEOUT) == "ada"


def test_close_drops_calls_that_wait_and_ends_threads(recorder):
    pool = recorder(1)
    gate = pool.block(ADA)
    waiting = pool.submit("waiting", BOB, "subject")
    threads = pool.threads()
    threading.Timer(0.05, gate.set).start()
    pool.workers.close()
    assert waiting.future.cancelled()
    assert pool.began == []
    assert not any(thread.is_alive() for thread in threads)
    with pytest.raises(RuntimeError):
        pool.workers.submit(lambda: None)


def test_idle_accounts_are_forgotten():
    queue = FairQueue()
    for n in range(5000):
        queue.add(Job(lambda: None, Owner(n, 0)), float(n))
        job = queue.start_next(float(n), 4)
        assert job is not None
        queue.end(job, n + 0.5)
    assert len(queue._accounts) < 2500
    assert queue._heaps == {} or not any(queue._heaps.values())
    assert queue.waiting == 0


def test_reconnect_storm_is_served_in_linear_time():
    queue = FairQueue()
    jobs = [Job(lambda: None, Owner(n, 0), "collection") for n in range(5000)]
    started_at = time.perf_counter()
    for job in jobs:
        queue.add(job, 0.0)
    for n in range(5000):
        job = queue.start_next(float(n), 4)
        assert job is not None
        queue.end(job, n + 0.5)
    assert time.perf_counter() - started_at < 2
