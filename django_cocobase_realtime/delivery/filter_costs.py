"""The limit ``filter_cost``: what the filters of one user may cost per event.

Connections of one user are counted together, so that many of them do not multiply the cost. Equal
filters on one collection are evaluated once, and counted once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..filters import Filter
from ..options import Limits
from ..transport.connection import Connection
from .query import AuthorizedQuery
from .subscription import Subscription


@dataclass(frozen=True, slots=True)
class NewFilter:
    """The filter of a requested subscription."""

    # name of the subscription, which replaces one of the same name
    subscription: str
    stream: str
    query: AuthorizedQuery


def exceeds_limit(
    limits: Limits,
    connection: Connection,
    new: NewFilter,
    subscriptions: Mapping[Connection, Mapping[str, Subscription]],
    pending: Mapping[Connection, float],
) -> bool:
    """Return whether a user's filters would cost more than the limit with a new one.

    ``subscriptions`` are those of all connections by name, and ``pending`` the costs of filters
    whose subscriptions are being opened. A connection without a user, for example one with an API
    key that many clients share, is counted alone.

    Small costs are not counted: if all subscriptions of a user cost as much, they stay within the
    limit. The total may therefore be twice the limit.
    """
    limit, cost = limits.filter_cost, new.query.cost
    if cost * limits.subscriptions * limits.connections_per_user <= limit:
        return False
    costs = {(new.stream, new.query.filter): cost}
    own = subscriptions.get(connection, {}).values()
    _add_costs(costs, (other for other in own if other.name != new.subscription))
    identity = connection.identity
    total = sum(costs.values())
    if total > limit:
        return True
    if (
        identity is None
        or identity.user_id is None
        or (total * limits.connections_per_user <= limit)
    ):
        return False
    for other, by_name in subscriptions.items():
        if other is connection or other.identity is None:
            continue
        if other.identity.same_subject(identity):
            _add_costs(costs, by_name.values())
    waiting = sum(
        other_cost
        for other, other_cost in pending.items()
        if other is not connection
        and other.identity is not None
        and other.identity.same_subject(identity)
    )
    return sum(costs.values()) + waiting > limit


def _add_costs(
    costs: dict[tuple[str, Filter], float], subscriptions: Iterable[Subscription]
) -> None:
    for subscription in subscriptions:
        query = subscription.query
        costs[subscription.stream, query.filter] = query.cost
