"""The order in which worker threads make calls, so that clients get fair shares of their time.

The next call is made for the account that has used the least time, and within the account for the
connection that has (start-time fair queueing, with the seconds that calls took). An account may
occupy half of the threads, and so may a subject, for example the collection whose permission is
evaluated. Therefore neither a client with many requests nor one slow permission delays others for
longer than the calls that are already running.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, NamedTuple

from django.db import OperationalError

# calls of one connection that may wait
MAX_WAITING_PER_CONNECTION = 200
# accounts, and connections of a busy account, whose used time is remembered although they are idle
MAX_IDLE_SHARES = 1000


class Owner(NamedTuple):
    """The client for which a call is made."""

    # the user, or what else the client shares with its other connections
    account: Hashable
    connection: Hashable = None
    # whether it makes one call only, so that its share need not be remembered
    is_single: bool = False

    def background(self) -> Owner:
        """Return the owner of work that must not delay the requests of the same connection."""
        return Owner(self.account, (self.connection, "background"))


# owner of the calls that are made for no client
SERVER = Owner("server")


class WorkersOverloaded(OperationalError):
    """Raised if too many calls of a connection wait.

    To callers, this is the same as a database that does not answer: the client is asked to try
    again later.
    """


class Job:
    """A call that waits for a thread or runs."""

    __slots__ = (
        "_error",
        "_has_run",
        "_result",
        "account",
        "call",
        "future",
        "owner",
        "queued_at",
        "share",
        "started_at",
        "subject",
    )

    def __init__(
        self, call: Callable[[], Any], owner: Owner = SERVER, subject: Hashable = None
    ) -> None:
        self.call = call
        self.owner = owner
        self.subject = subject
        # the shares of its account and of its connection, once it is in a queue
        self.account: _Account
        self.share: _Share
        # monotonic time at which it began to wait, and at which the call began
        self.queued_at = 0.0
        self.started_at = 0.0
        # its result
        self.future: Future[Any] = Future()
        # what `run` has to leave for `finish`
        self._has_run = False
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call, unless it was cancelled."""
        if not self.future.set_running_or_notify_cancel():
            return
        self._has_run = True
        try:
            self._result = self.call()
        except BaseException as error:  # raised again by the code that waits for the result
            self._error = error

    def finish(self) -> None:
        """Set the future to the result of the call."""
        if not self._has_run:
            return
        if self._error is None:
            self.future.set_result(self._result)
        else:
            self.future.set_exception(self._error)


class _Share:
    """How much of the workers' time an account or a connection has used."""

    __slots__ = ("running", "used", "waiting")

    def __init__(self, used: float) -> None:
        # seconds of the calls that have ended; a share that begins later starts with the seconds
        # of the share that was served last, so that it cannot catch up on time before it came
        self.used = used
        # calls that run
        self.running: set[Job] = set()
        # number of calls that wait
        self.waiting = 0

    @property
    def is_idle(self) -> bool:
        return not self.running and not self.waiting

    def used_at(self, now: float) -> float:
        """Return the used seconds, including those of calls that run."""
        return self.used + sum(now - job.started_at for job in self.running)


class _Shares(dict[Hashable, _Share]):
    """The shares of accounts, or of the connections of one account."""

    def __init__(self) -> None:
        # used seconds of the share that was served last
        self.served = 0.0
        self._prune_at = MAX_IDLE_SHARES

    def get_or_create(self, key: Hashable) -> _Share:
        share = self.get(key)
        if share is None:
            share = self[key] = self._create()
            if len(self) > self._prune_at:
                self._prune(share)
        elif share.is_idle:
            share.used = max(share.used, self.served)
        return share

    def _create(self) -> _Share:
        return _Share(self.served)

    def _prune(self, new: _Share) -> None:
        for key, share in list(self.items()):
            if share.is_idle and share is not new:
                del self[key]
        self._prune_at = len(self) + MAX_IDLE_SHARES


class _Account(_Share):
    """The share of an account, and those of its connections."""

    __slots__ = ("connections", "queues")

    def __init__(self, used: float) -> None:
        super().__init__(used)
        self.connections = _Shares()
        # calls that wait, by subject
        self.queues: dict[Hashable, _Queue] = {}

    def forget_connections(self) -> None:
        """Forget the times of the connections if none of them needs a thread."""
        if self.is_idle:
            self.connections.clear()


class _Accounts(_Shares):
    def _create(self) -> _Account:
        return _Account(self.served)


class _Queue:
    """Calls of one account that wait and have the same subject."""

    __slots__ = ("account", "is_in_heap", "jobs")

    def __init__(self, account: _Account) -> None:
        self.account = account
        # by connection, oldest first; without empty ones
        self.jobs: dict[Hashable, deque[Job]] = {}
        # whether the queue is in the heap of its subject; it is not while the account occupies as
        # many threads as it may
        self.is_in_heap = False

    def append(self, job: Job) -> None:
        self.jobs.setdefault(job.owner.connection, deque()).append(job)

    def remove(self, job: Job) -> bool:
        """Remove a call; return whether it was there."""
        jobs = self.jobs.get(job.owner.connection)
        if jobs is None or job not in jobs:
            return False
        jobs.remove(job)
        if not jobs:
            del self.jobs[job.owner.connection]
        return True

    def next_job(self, now: float) -> Job:
        """Return the oldest call of the connection that has used the least time."""
        oldest = (jobs[0] for jobs in self.jobs.values())
        return min(oldest, key=lambda job: job.share.used_at(now))


class _Candidate(NamedTuple):
    """A call that may run next. The smallest candidate of all subjects does."""

    # used seconds of its account and of its connection
    account_used: float
    connection_used: float
    # differs, so that jobs are not compared
    order: int
    job: Job


class FairQueue:
    """Calls that wait for threads, and those that run. Not thread-safe."""

    def __init__(self) -> None:
        # number of calls that wait
        self.waiting = 0
        self._accounts = _Accounts()
        # by subject, the queues of accounts by used seconds, which may have grown since
        self._heaps: dict[Hashable, list[tuple[float, int, _Queue]]] = {}
        # number of running calls by subject
        self._running: Counter[Hashable] = Counter()
        # keeps items of heaps in order that have the same time
        self._order = itertools.count()

    def add(self, job: Job, now: float) -> None:
        """Add a call. Raises `WorkersOverloaded` if too many of its connection wait."""
        account = self._accounts.get_or_create(job.owner.account)
        assert isinstance(account, _Account)
        share = account.connections.get_or_create(job.owner.connection)
        if share.waiting >= MAX_WAITING_PER_CONNECTION and job.owner != SERVER:
            raise WorkersOverloaded("Too many calls of this connection wait for a thread.")
        job.account, job.share, job.queued_at = account, share, now
        queue = account.queues.get(job.subject)
        if queue is None:
            queue = account.queues[job.subject] = _Queue(account)
        queue.append(job)
        self._count_waiting(job, 1)
        self._push(job.subject, queue, now)

    def remove(self, job: Job) -> None:
        """Remove a call that waits; do nothing if it does not."""
        queue = job.account.queues.get(job.subject)
        if queue is not None and queue.remove(job):
            self._count_waiting(job, -1)
            if not queue.jobs:  # the heap drops it when it comes to the top
                del job.account.queues[job.subject]
            job.account.forget_connections()
            self._forget_if_single(job)

    def start_next(self, now: float, size: int) -> Job | None:
        """Return the next call, which runs from now on; None if there is none that may run.

        ``size`` is the number of threads.
        """
        bound = max(1, size // 2)
        candidates = [
            candidate
            for subject in list(self._heaps)
            if subject is None or self._running[subject] < bound
            if (candidate := self._peek(subject, now, bound)) is not None
        ]
        if not candidates:
            return None
        best = min(candidates)
        self._accounts.served = max(self._accounts.served, best.account_used)
        connections = best.job.account.connections
        connections.served = max(connections.served, best.connection_used)
        self._start(best.job, now)
        return best.job

    def end(self, job: Job, now: float) -> None:
        """Record that a call has ended."""
        for share in (job.account, job.share):
            share.running.discard(job)
            share.used += now - job.started_at
        job.account.forget_connections()
        self._running[job.subject] -= 1
        if not self._running[job.subject]:
            del self._running[job.subject]
        for subject, queue in job.account.queues.items():
            self._push(subject, queue, now)
        self._forget_if_single(job)

    def _forget_if_single(self, job: Job) -> None:
        if job.owner.is_single and job.account.is_idle:
            self._accounts.pop(job.owner.account, None)

    def drain(self) -> list[Job]:
        """Remove and return all calls that wait."""
        waiting = [
            job
            for heap in self._heaps.values()
            for _, _, queue in heap
            for jobs in queue.jobs.values()
            for job in jobs
        ]
        for job in waiting:
            self.remove(job)
        return waiting

    def _count_waiting(self, job: Job, difference: int) -> None:
        self.waiting += difference
        job.account.waiting += difference
        job.share.waiting += difference

    def _push(self, subject: Hashable, queue: _Queue, now: float) -> None:
        if not queue.is_in_heap:
            queue.is_in_heap = True
            item = (queue.account.used_at(now), next(self._order), queue)
            heapq.heappush(self._heaps.setdefault(subject, []), item)

    def _peek(self, subject: Hashable, now: float, bound: int) -> _Candidate | None:
        """Return the first call of a subject whose account may occupy another thread."""
        heap = self._heaps[subject]
        while heap:
            used, order, queue = heap[0]
            if not queue.jobs or len(queue.account.running) >= bound:
                heapq.heappop(heap)
                queue.is_in_heap = False
                continue
            used_now = queue.account.used_at(now)
            if used_now <= used:
                job = queue.next_job(now)
                return _Candidate(used, job.share.used_at(now), order, job)
            heapq.heapreplace(heap, (used_now, order, queue))
        del self._heaps[subject]
        return None

    def _start(self, job: Job, now: float) -> None:
        """Begin a call that is the first of its heap."""
        _, _, queue = heapq.heappop(self._heaps[job.subject])
        queue.is_in_heap = False
        job.started_at = now
        for share in (job.account, job.share):
            share.running.add(job)
        self.remove(job)
        if queue.jobs:  # behind those with the same time
            self._push(job.subject, queue, now)
        self._running[job.subject] += 1
