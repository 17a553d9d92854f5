"""The limit ``filter_cost``: what the filters of one client may cost per event.

Connections of one user are counted together, so that many of them do not multiply the cost, and so
are connections from one address with an API key that has no user. Filters are counted as often as
they are evaluated: equal filters on one collection once, but once more with ``transitions``, and
for each subscription if a row permission decides.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

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
    transitions: bool
    query: AuthorizedQuery


def exceeds_limit(
    limits: Limits,
    connection: Connection,
    new: NewFilter,
    connections: Iterable[Connection],
    subscriptions: Mapping[Connection, Mapping[str, Subscription]],
    pending: Mapping[Connection, float],
) -> bool:
    """Return whether a client's filters would cost more than the limit with a new one.

    ``connections`` are those of the same account, ``subscriptions`` those of all connections by
    name, and ``pending`` the costs of filters whose subscriptions are being opened.

    Small costs are not counted: if all subscriptions of a client cost as much, they stay within the
    limit. The total may therefore be twice the limit.
    """
    limit, cost = limits.filter_cost, new.query.cost
    identity = connection.identity
    is_user = identity is not None and identity.user_key is not None
    most = limits.connections_per_user if is_user else limits.connections_per_address
    if cost * limits.subscriptions * most <= limit:
        return False
    key = _evaluation(connection, new.subscription, new.stream, new.transitions, new.query)
    costs = {key: cost}
    own = subscriptions.get(connection, {}).values()
    _add_costs(costs, (other for other in own if other.name != new.subscription))
    if sum(costs.values()) > limit:
        return True
    waiting = 0.0
    for other in connections:
        if other is not connection:
            _add_costs(costs, subscriptions.get(other, {}).values())
            waiting += pending.get(other, 0.0)
    return sum(costs.values()) + waiting > limit


def _add_costs(costs: dict[Hashable, float], subscriptions: Iterable[Subscription]) -> None:
    for other in subscriptions:
        query, transitions = other.query, other.request.transitions
        key = _evaluation(other.connection, other.name, other.stream, transitions, query)
        costs[key] = max(costs.get(key, 0.0), query.cost)


def _evaluation(
    connection: Connection, name: str, stream: str, transitions: bool, query: AuthorizedQuery
) -> Hashable:
    """Return a key that subscriptions share for which a filter is evaluated only once.

    These are subscriptions in one index of a `SubscriptionTable`. A row permission is followed by
    the client's filter, for each subscription.
    """
    if query.check is not None:
        return connection, name
    return stream, query.filter, transitions
