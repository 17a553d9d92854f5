"""A history that is played with connected clients, which are cut, resume, and change queries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from tests.support.live_client import LiveClient, Pages, Subscription, check, wait_for_same
from tests.support.live_history import History
from tests.support.live_oracle import (
    CONDITIONS,
    VISIBLE,
    Aggregation,
    Condition,
    LogFold,
    Query,
    Window,
    in_project,
)
from tests.support.threads import call

# share of windows among live queries
WINDOWS = float(os.environ.get("LIVE_WINDOWS", "0.7"))
LIMITS = [1, 2, 3, 5, 10, 20, 60]
ORDERS = [
    (),
    ("priority",),
    ("-priority", "title"),
    ("title",),
    ("-title", "weight"),
    ("hours",),
    ("-hours", "-size"),
    ("-size",),
    ("size", "-urgent"),
    ("urgent", "-score", "state"),
    ("score",),
    ("-due", "priority"),
    ("project", "-weight"),
    ("state", "-priority", "-due", "weight", "title"),
]
NUMBERS = ("hours", "size", "priority", "weight")
GROUPS = [(), (), ("project",), ("state",), ("urgent", "state"), ("priority",), ("owner",)]
FIELDS = [None, None, None, ("title",), ("priority", "hours"), ("project", "size", "due")]


class Queries:
    """Random queries, of which many share filters and orders."""

    def __init__(self, choose: random.Random, history: History) -> None:
        self._choose, self._history = choose, history
        self._conditions = choose.sample(CONDITIONS, 2)
        self._orders = choose.sample(ORDERS, 3)

    def any(self) -> Query:
        return self.window() if self._choose.random() < WINDOWS else self.aggregation()

    def window(self) -> Window:
        choose = self._choose
        return Window(
            choose.choice(list(VISIBLE)),
            self._condition(),
            choose.choice(self._orders),
            choose.choice(LIMITS),
            fields=choose.choice(FIELDS),
            document=choose.randrange(1, 40) if choose.random() < 0.05 else None,
        )

    def aggregation(self) -> Aggregation:
        choose = self._choose
        extremes = (*NUMBERS, "score")
        return Aggregation(
            choose.choice(list(VISIBLE)),
            self._condition(),
            sum=tuple(choose.sample(NUMBERS, choose.randrange(3))),
            avg=tuple(choose.sample(NUMBERS, choose.randrange(3))),
            min=tuple(choose.sample(extremes, choose.randrange(3))),
            max=tuple(choose.sample(extremes, choose.randrange(3))),
            group_by=choose.choice(GROUPS),
        )

    def next(self, subscription: Subscription) -> Query:
        """Return a query to take the place of that of a subscription."""
        choose, query = self._choose, subscription.last_query
        if isinstance(query, Window) and choose.random() < 0.5:
            return replace(query, limit=choose.choice(LIMITS))
        if isinstance(query, Window) and subscription.is_complete and choose.random() < 0.7:
            if subscription.more:
                return replace(query, after=subscription.next, limit=choose.choice(LIMITS))
            return replace(query, after=None)
        return self.any()

    def _condition(self) -> Condition:
        choose = self._choose
        if choose.random() < 0.2:
            return in_project(choose.choice(self._history.projects).pk)
        return choose.choice(self._conditions)


# opens a connection for a client, which is not authenticated yet
Connect = Callable[[LiveClient], AbstractAsyncContextManager[Any]]


class Play:
    """A history with connected clients."""

    def __init__(self, connect: Connect, history: History, *, run: Any = call) -> None:
        self._connect, self._run, self.history = connect, run, history
        self.choose = random.Random(f"{history.seed} play")
        self.queries = Queries(self.choose, history)
        # two connections of one user
        users = [*history.users, history.users[0]]
        self.clients = [LiveClient(user, batch=self.choose.random() < 0.5) for user in users]
        # descriptions of all steps
        self.log: list[str] = []
        # numbers of frames of several kinds, and of compared results
        self.counts: Counter[str] = Counter()
        self._pages = Pages()
        self._stacks: dict[LiveClient, contextlib.AsyncExitStack] = {}
        # the names of subscriptions
        self._names = 0

    async def open(self, client: LiveClient) -> None:
        stack = self._stacks[client] = contextlib.AsyncExitStack()
        connection = await stack.enter_async_context(self._connect(client))
        await connection.send({"type": "auth", "batch": client.batch})
        await connection.receive("authenticated")
        await client.start(connection)

    async def close(self, client: LiveClient) -> None:
        if client in self._stacks:
            async with self._stacks.pop(client):
                await client.stop()

    async def close_all(self) -> None:
        """Close the connections that a failure left open."""
        for client in self.clients:
            with contextlib.suppress(AssertionError):
                await self.close(client)

    async def subscribe(self, client: LiveClient) -> None:
        self._names += 1
        await client.subscribe(f"s{self._names}", self.queries.any())

    async def run(self, steps: int, before: Mapping[int, Callable[[], Any]] | None = None) -> None:
        """Play so many steps. ``before`` has functions to call before some steps."""
        choose = self.choose
        for client in self.clients:
            await self.open(client)
            for _ in range(choose.choice([1, 2, 3])):
                await self.subscribe(client)
        for number in range(steps):
            if before and number in before:
                await before[number]()
            await self.step()
        await self.compare()
        for client in self.clients:
            await self.close(client)

    async def step(self) -> None:
        choose = self.choose
        count = choose.choice([1, 1, 1, 3])
        if choose.random() < 0.2:
            writes = (self._run(self.history.write) for _ in range(count))
            self.log += await asyncio.gather(*writes)
        else:
            for _ in range(count):
                self.log.append(await self._run(self.history.write))
        client = choose.choice(self.clients)
        name = choose.choice(list(client.subscriptions)) if client.subscriptions else None
        match choose.randrange(12):
            case 0 | 1 | 2 if name is not None:
                query = self.queries.next(client.subscriptions[name])
                self.log.append(f"{name} is now {query}")
                await client.subscribe(name, query)
            case 3:
                await self.subscribe(client)
            case 4 if name is not None and choose.random() < 0.5:
                await client.unsubscribe(name)
            case 5 | 6:
                self.log.append(f"cut {self.clients.index(client)}")
                await self.close(client)
                for _ in range(choose.choice([0, 0, 1])):
                    self.log.append(await self._run(self.history.write))
                await self.open(client)
                for _ in range(choose.choice([0, 1, 2])):  # while it resumes
                    self.log.append(await self._run(self.history.write))
            case 7 if choose.random() < 0.5:
                await self.compare()
        for client in self.clients:
            client.check_alive()

    async def compare(self) -> None:
        """Compare all results with the log, and with SQL once nothing waits."""
        await self._read_pages()
        for client in self.clients:
            for subscription in client.subscriptions.values():
                await wait_for_same(client, subscription, self._pages, self._run)
        fold = await self._read_pages()
        for client in self.clients:
            for subscription in client.all_subscriptions():
                self.counts["results"] += check(subscription, client.user, fold, self._pages)
                self.counts += subscription.counts
                subscription.counts.clear()
            client.ended = [s for s in client.ended if s.observations]

    async def _read_pages(self) -> LogFold:
        """Read the log until the places of all pages are known, and return it."""
        async with asyncio.timeout(30):
            while True:
                fold = await self._run(LogFold)
                subscriptions = [s for c in self.clients for s in c.all_subscriptions()]
                for subscription in subscriptions:
                    self._pages.add(fold, subscription.observations)
                if all(self._pages.knows(s.last_query) for s in subscriptions):
                    return fold
                await asyncio.sleep(0.01)


@contextlib.contextmanager
def describing(play: Play, seed: int) -> Iterator[None]:
    """Add the seed and the steps of a history to the message of a failure."""
    try:
        yield
    except AssertionError as error:
        log = "\n".join(play.log)
        raise AssertionError(f"seed {seed}\n{log}\n{error}") from None
