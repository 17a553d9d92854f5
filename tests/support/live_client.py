"""Clients that keep the results of live queries from frames alone, and a check of these results."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from websockets.exceptions import ConnectionClosed

from django_cocobase_realtime.log import cursor as cursors
from tests.support.live_oracle import (
    FIELDS,
    LogFold,
    Query,
    Result,
    Row,
    Window,
    convert,
    convert_all,
    convert_group,
    evaluate,
    read_result,
)
from tests.support.threads import call


@dataclass(frozen=True)
class Observation:
    """The result of a query that a client had after a complete frame."""

    query: Query
    result: Result
    # position of the frame's cursor
    seq: int
    # cursor of the next page
    next: str | None
    # number of frames that the subscription had received
    frames: int


class Subscription:
    """One live query of a client, over several connections."""

    def __init__(self, name: str, query: Query) -> None:
        self.name = name
        # the query that the server was last asked for, and that of the result
        self.query = self.applied = query
        # the documents in order, each as its id and data
        self.documents: list[tuple[int, Row]] = []
        # the groups by key
        self.groups: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.more: bool | None = None
        self.next: str | None = None
        self.scope: str | None = None
        # cursor up to which the result is known; None until the query has its whole result
        self.cursor: str | None = None
        self.frames: list[dict[str, Any]] = []
        # results that were not compared yet
        self.observations: list[Observation] = []
        # position of the hidden stream of which the last compared result has the rights
        self.related_seq = 0
        # queries that were asked for, whose reply has not come, with whether only the limit differs
        self.asked: list[tuple[Query, bool]] = []
        self.counts: Counter[str] = Counter()
        self._parts: list[dict[str, Any]] = []
        # whether the next complete frame has ``reset``; None if both are right
        self._expects_reset: bool | None = True

    @property
    def result(self) -> Result:
        if isinstance(self.applied, Window):
            return [*self.documents], self.more
        return dict(self.groups)

    @property
    def last_query(self) -> Query:
        """The query that it asked for last."""
        return self.asked[-1][0] if self.asked else self.query

    @property
    def is_complete(self) -> bool:
        """Whether the client has the result of the query that it asked for last."""
        return self.cursor is not None and not self.asked

    def reopen(self) -> None:
        """Forget what a connection that was cut had not completed."""
        self._parts, self.asked = [], []

    def apply(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        match frame["type"]:
            case "subscribed":
                self._begin(frame)
            case "window":
                self._add(frame, self._splice)
            case "aggregate":
                self._add(frame, self._merge)
            case "cursor":
                # the result has not changed
                assert self._parts == [], "a cursor within a frame of several parts"
                if self.cursor is not None and self.applied is self.query:
                    self.cursor = frame["cursor"]
                    self.counts["unchanged"] += self._expects_reset is None
                    self._expects_reset = False
                    self._observe()
            case other:
                raise AssertionError(other, frame)

    def _begin(self, frame: dict[str, Any]) -> None:
        self.query, only_limit = self.asked.pop(0)
        self.scope, self._parts = frame["scope"], []
        assert "cursor" not in frame, frame
        assert "kinds" not in frame, frame
        if frame.get("resumed"):
            self.counts["resumed"] += 1
            # a cursor, or the whole result
            self.applied, self._expects_reset = self.query, None
            return
        self.counts["not resumed"] += "resumed" in frame
        self.cursor = None
        if not only_limit:
            self._expects_reset = True

    def _add(self, frame: dict[str, Any], change: Any) -> None:
        if frame.get("reset"):
            self._parts = []
        self._parts.append(frame)
        if frame.get("partial"):
            self.counts["parts"] += 1
            assert frame.keys().isdisjoint({"more", "next", "cursor", "scope"}), frame
            return
        is_reset = bool(self._parts[0].get("reset"))
        # if the rights have changed, both are right
        if "scope" not in frame:
            assert self._expects_reset in (None, is_reset), ("reset", self._expects_reset, frame)
        self.counts["resets" if is_reset else "changes"] += 1
        if is_reset:
            self.documents, self.groups, self.next = [], {}, None
        self.applied = self.query
        for part in self._parts:
            change(part)
        self._parts = []
        self.cursor, self._expects_reset = frame["cursor"], False
        self.scope = frame.get("scope", self.scope)
        self._observe()

    def _splice(self, part: dict[str, Any]) -> None:
        for id in part["remove"]:
            (index,) = (n for n, (other, _) in enumerate(self.documents) if other == int(id))
            del self.documents[index]
        for index, document in part["insert"]:
            assert 0 <= index <= len(self.documents), (index, len(self.documents))
            id = convert("id", document["id"])
            assert id not in [other for other, _ in self.documents], (id, "is a duplicate")
            self.documents.insert(index, (id, self._data(document)))
        if not part.get("partial"):
            self.more, self.next = part["more"], part.get("next", self.next)
            assert isinstance(self.more, bool)

    def _data(self, document: dict[str, Any]) -> Row:
        data = {name: value for name, value in document["data"].items() if name != "id"}
        assert isinstance(self.query, Window)
        names = FIELDS if self.query.fields is None else self.query.fields
        assert data.keys() == set(names), document
        return convert_all(data)

    def _merge(self, part: dict[str, Any]) -> None:
        assert not isinstance(self.query, Window)
        for group in part["groups"]:
            names = self.query.group_by
            assert ("key" in group) == bool(names), group
            values = group.get("key", {})
            assert values.keys() == set(names), group
            key = tuple(convert(name, values[name]) for name in names)
            if names and group["count"] == 0:
                # it may be new to this client
                self.groups.pop(key, None)
            else:
                self.groups[key] = convert_group(group)

    def _observe(self) -> None:
        assert self.cursor is not None
        seq = cursors.decode(self.applied.collection, self.cursor).seq
        observation = Observation(self.applied, self.result, seq, self.next, len(self.frames))
        self.observations.append(observation)


class LiveClient:
    """A user's connection with several live queries."""

    def __init__(self, user: Any, *, batch: bool = False) -> None:
        self.user = user
        self.batch = batch
        self.subscriptions: dict[str, Subscription] = {}
        # those that it ended since the last comparison
        self.ended: list[Subscription] = []
        self.connection: Any = None
        self.failure: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, connection: Any) -> None:
        """Use a new connection, on which all queries are resumed."""
        self.connection = connection
        for subscription in self.subscriptions.values():
            query = subscription.last_query
            subscription.reopen()
            await self._send(subscription, query, resume=True)
        self._task = asyncio.create_task(self._read())

    async def stop(self) -> None:
        """Stop reading, as if the connection were cut."""
        assert self._task is not None
        while not self._task.done():
            # before Python 3.12, `wait_for` loses a cancellation if a frame comes at the same time
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.1)
        self.check_alive()

    async def subscribe(self, name: str, query: Query) -> None:
        """Subscribe to a query, under a name that may have another query."""
        if name not in self.subscriptions:
            self.subscriptions[name] = Subscription(name, query)
        await self._send(self.subscriptions[name], query)

    async def unsubscribe(self, name: str) -> None:
        await self.connection.send({"type": "unsubscribe", "subscription": name})
        self.ended.append(self.subscriptions.pop(name))

    def all_subscriptions(self) -> list[Subscription]:
        return [*self.subscriptions.values(), *self.ended]

    async def _send(
        self, subscription: Subscription, query: Query, *, resume: bool = False
    ) -> None:
        since = {}
        if resume and subscription.cursor is not None and subscription.applied == query:
            since = {"since": subscription.cursor, "scope": subscription.scope}
        last = subscription.last_query
        has_old = not resume and (subscription.frames or subscription.asked)
        only_limit = bool(
            has_old
            and isinstance(last, Window)
            and isinstance(query, Window)
            and replace(last, limit=query.limit) == query
        )
        subscription.asked.append((query, only_limit))
        await self.connection.send(
            {
                "type": "subscribe",
                "collection": query.collection,
                "subscription": subscription.name,
                **query.request,
                **since,
            }
        )

    async def _read(self) -> None:
        try:
            while True:
                frame = await self.connection.receive(timeout=3600)
                for part in frame["events"] if frame["type"] == "events" else [frame]:
                    self._apply(part)
        except ConnectionClosed:
            pass  # the server was killed
        except Exception as error:
            self.failure = error

    def _apply(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "unsubscribed":
            return
        name = frame.get("subscription")
        # frames that were under way may come for a name that is no longer used
        if frame["type"] == "error" or name in self.subscriptions:
            assert frame["type"] != "error", frame
            self.subscriptions[name].apply(frame)

    def check_alive(self) -> None:
        """Raise what ended the reading."""
        if self.failure is not None:
            frames = [s.frames[-4:] for s in self.subscriptions.values()]
            raise AssertionError(f"{self.failure!r}\n{json.dumps(frames)}") from self.failure


class Pages:
    """The places of page cursors, which are rows behind which pages begin."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, tuple[str, ...], str], Row] = {}

    def add(self, fold: LogFold, observations: Iterable[Observation]) -> None:
        """Note the page cursors of frames, which are behind the last document."""
        for observation in observations:
            query = observation.query
            if (
                isinstance(query, Window)
                and observation.result[1]
                and fold.has(query, observation.seq)
            ):
                self._add(fold, query, observation)

    def _add(self, fold: LogFold, query: Window, observation: Observation) -> None:
        assert observation.next is not None, ("there is no page cursor", observation)
        key = (query.collection, query.order, observation.next)
        row = fold.rows[query.collection][observation.seq][observation.result[0][-1][0]]
        place = {name: row[name] for name in _names(query)}
        known = self._rows.setdefault(key, row)
        assert place == {name: known[name] for name in _names(query)}, (
            "a page cursor has two places",
            place,
            observation,
        )

    def knows(self, query: Query) -> bool:
        """Return whether it is known where the page of a query begins."""
        key = (query.collection, query.order, query.after) if isinstance(query, Window) else None
        return key is None or query.after is None or key in self._rows

    def after(self, query: Query) -> Row | None:
        """Return the row behind which a query begins."""
        if not isinstance(query, Window) or query.after is None:
            return None
        return self._rows[query.collection, query.order, query.after]


def _names(query: Window) -> list[str]:
    return [*(text.removeprefix("-") for text in query.order), "id"]


def check(subscription: Subscription, user: Any, fold: LogFold, pages: Pages) -> int:
    """Compare a result after each frame with the log up to its cursor.

    The rights of the user may be newer than the frame, but not older than the changes in it, nor
    older than before. Return the number of compared results. Results at positions that the log had
    not reached when it was read are kept for the next time.
    """
    count = 0
    while subscription.observations:
        observation = subscription.observations[0]
        if not fold.has(observation.query, observation.seq):
            break
        _check(subscription, observation, user, fold, pages)
        del subscription.observations[0]
        count += 1
    return count


def _check(
    subscription: Subscription, observation: Observation, user: Any, fold: LogFold, pages: Pages
) -> None:
    query, seq = observation.query, observation.seq
    after, expected = pages.after(query), {}
    first = max(subscription.related_seq, fold.related[query.collection][seq])
    for related_seq in range(first, len(fold.members)):
        projects = fold.projects(user.pk, related_seq)
        if projects not in expected:
            rows = fold.visible(query.collection, seq, user.pk, projects)
            expected[projects] = evaluate(rows, query, after)
        if expected[projects] == observation.result:
            subscription.related_seq = related_seq
            return
    frames = subscription.frames[: observation.frames][-6:]
    raise AssertionError(
        f"{subscription.name} of {user.pk} at {seq} after {observation.frames} frames, "
        f"related {first}\n{query}\n{after}\n"
        f"has  {observation.result}\nlog  {next(iter(expected.values()))}\n"
        + "\n".join(json.dumps(frame) for frame in frames)
    )


async def wait_for_same(
    client: LiveClient,
    subscription: Subscription,
    pages: Pages,
    run: Any = call,
    seconds: float = 30.0,
) -> None:
    """Wait until a client has the result that the database has. ``run`` calls in a thread."""
    try:
        async with asyncio.timeout(seconds):
            while not subscription.is_complete:
                client.check_alive()
                await asyncio.sleep(0.005)
            query = subscription.query
            expected = await run(read_result, query, client.user, pages.after(query))
            while subscription.result != expected:
                client.check_alive()
                await asyncio.sleep(0.005)
    except TimeoutError:
        frames = "\n".join(json.dumps(frame) for frame in subscription.frames[-6:])
        with contextlib.suppress(NameError):
            result = f"has  {subscription.result}\nSQL  {expected}"
        raise AssertionError(f"{subscription.query}\n{result}\n{frames}") from None
