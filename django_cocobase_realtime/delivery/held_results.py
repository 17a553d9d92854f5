"""Results of live queries that the server holds for clients: their bytes, and their successors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..live_queries.queries import LiveQuery, WindowQuery
from .subscription import Subscription
from .topic import CollectionTopic


def take_over(topic: CollectionTopic, new: Subscription, old: Subscription) -> None:
    """Have a subscription continue with the result of the one that it replaces, if it can.

    Then its client is sent the difference only, for example after it asked for a larger window.
    """
    if (
        old.stream == new.stream
        and new.request.live is not None
        and _without_limit(old.request.live) == _without_limit(new.request.live)
        and old.query.filter == new.query.filter
        and old.query.fields == new.query.fields
    ):
        sent = topic.live_queries.discard(old)
        new.sent = old.sent if sent is None else sent


def _without_limit(query: LiveQuery | None) -> object:
    return (query.order, query.after) if isinstance(query, WindowQuery) else query


def held_bytes(subscriptions: Iterable[Subscription], topics: Mapping[str, CollectionTopic]) -> int:
    """Return the bytes of the rows that the windows of subscriptions hold, each window once."""
    queries = {
        live: None
        for subscription in subscriptions
        if (live := topics[subscription.stream].live_queries.find(subscription)) is not None
    }
    return sum(live.state.size for live in queries)
