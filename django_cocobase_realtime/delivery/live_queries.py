"""The live queries of a process on one collection, with an index of those a change concerns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Any

from ..declarations.collection import Collection
from ..events import Change
from ..filters import Filter, FilterIndex
from ..live_queries.queries import AggregateQuery, WindowQuery
from ..log.cursor import Position
from .aggregate_query import AggregateState
from .live_query import LiveQuery, ResultForm, ResultState, RowChange
from .query import AuthorizedQuery
from .subscription import Subscription
from .window_query import WindowState


class LiveQueries:
    """The live queries on one collection. The arguments are those of `LiveQuery`."""

    def __init__(
        self,
        collection: Collection,
        *,
        get_position: Callable[[], Position | None],
        catch_up: Callable[[], Awaitable[None]],
        end: Callable[[Subscription, Exception], None],
    ) -> None:
        self._collection = collection
        self._get_position = get_position
        self._catch_up = catch_up
        self._end = end
        # by filter and query
        self._queries: dict[tuple[Filter, Hashable], LiveQuery[Any]] = {}
        self._index: FilterIndex[LiveQuery[Any]] = FilterIndex()
        # the key in `_queries` of each subscription
        self._keys: dict[Subscription, tuple[Filter, Hashable]] = {}

    def count(self) -> tuple[Counter[str], Counter[str]]:
        """Return the numbers of queries and of subscriptions: of windows, and of aggregates."""
        queries = Counter(_kind(live.state) for live in self._queries.values())
        keys = Counter(self._keys.values())
        subscriptions: Counter[str] = Counter()
        for key, number in keys.items():
            if key in self._queries:
                subscriptions[_kind(self._queries[key].state)] += number
        return queries, subscriptions

    def authorized(self) -> Iterator[AuthorizedQuery]:
        """Yield what the subscriptions may see."""
        return (subscription.query for subscription in self._keys)

    def join(self, subscription: Subscription) -> LiveQuery[Any]:
        """Add a subscription, and return its live query."""
        self.discard(subscription)
        query = subscription.request.live
        assert query is not None
        # those of windows with different limits are shared
        what = (query.order, query.after) if isinstance(query, WindowQuery) else query
        key = (subscription.query.filter, what)
        live = self._queries.get(key)
        if live is None:
            live = self._queries[key] = self._create(key[0], query)
            self._index.add(live, live.filter)
        self._keys[subscription] = key
        live.join(subscription, form_of(subscription))
        return live

    def find(self, subscription: Subscription) -> LiveQuery[Any] | None:
        """Return the live query of a subscription, if it has one."""
        key = self._keys.get(subscription)
        return None if key is None else self._queries.get(key)

    def discard(self, subscription: Subscription) -> Any:
        """Remove a subscription; return the result that it was sent, None if it was not live."""
        key = self._keys.pop(subscription, None)
        if key is None:
            return None
        live = self._queries.get(key)
        if live is None:
            return None
        sent = live.discard(subscription)
        if live.is_unused:
            del self._queries[key]
            self._forget(live)
        return sent

    def dispatch(self, change: Change, *, is_partial: bool) -> None:
        """Apply a change to the queries that it concerns.

        ``is_partial`` is whether it is not known what the row was before, so that the change may
        concern any query.
        """
        if not self._queries:
            return
        before, after = (
            None if image is None else self._collection.row(image)
            for image in (change.before, change.after)
        )
        new = set() if after is None else set(self._index.matching(after))
        if is_partial:
            for live in list(self._queries.values()):
                live.receive(RowChange(change, None, after if live in new else None, True))
            return
        old = set() if before is None else set(self._index.matching(before))
        for live in old | new:
            matched, matches = before if live in old else None, after if live in new else None
            live.receive(RowChange(change, matched, matches))

    def verify_next(self) -> None:
        """Count the rows of the aggregates again that were counted least recently."""
        for key, live in self._queries.items():
            if isinstance(live.state, AggregateState):
                # behind the others
                self._queries[key] = self._queries.pop(key)
                if live.is_complete:
                    live.state.verify(self._known_position())
                    live.read_again()
                return

    def reset(self) -> None:
        """Forget all results, because events were missed. Their subscriptions must end."""
        for live in self._queries.values():
            self._forget(live)
        self._queries.clear()
        self._keys.clear()

    stop = reset

    def _create(self, filter: Filter, query: WindowQuery | AggregateQuery) -> LiveQuery[Any]:
        state: ResultState[Any]
        if isinstance(query, WindowQuery):
            state = WindowState(self._collection, query)
        else:
            state = AggregateState(self._collection, query)
        return LiveQuery(
            self._collection.stream,
            filter,
            state,
            get_position=self._known_position,
            catch_up=self._catch_up,
            end=self._end,
        )

    def _known_position(self) -> Position:
        position = self._get_position()
        assert position is not None
        return position

    def _forget(self, live: LiveQuery[Any]) -> None:
        self._index.discard(live, live.filter)
        live.stop()


def _kind(state: ResultState[Any]) -> str:
    return "aggregate" if isinstance(state, AggregateState) else "window"


def form_of(subscription: Subscription) -> ResultForm:
    """Return the form in which a subscription gets a result."""
    query = subscription.request.live
    if isinstance(query, WindowQuery):
        return ResultForm(subscription.name, subscription.query.fields, query.limit)
    return ResultForm(subscription.name)
