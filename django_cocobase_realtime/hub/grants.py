"""The permissions of a connection's subscriptions and rooms, evaluated again and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from ..auth.users import refresh_user
from ..conf import conf
from ..declarations.registry import UnknownCollection, registry
from ..declarations.room import RoomGrant
from ..delivery.query import AuthorizedQuery, allow_the_same, rebuild_query
from ..delivery.subscription import Subscription
from ..identity import Identity
from ..rooms.local_room import RoomMembership
from ..transport.connection import Connection
from ..utils.concurrency import run_for_subject, run_in_threadpool
from ..utils.project_code import ProjectCodeFailed

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class GrantSnapshot:
    """A connection's subscriptions and rooms at one moment, with the permissions they have."""

    connection: Connection
    identity: Identity
    # `Connection.permissions_version` at that moment
    permissions_version: int
    subscriptions: list[Subscription]
    memberships: list[RoomMembership]


@dataclass(frozen=True, slots=True)
class FreshGrants:
    """The result of evaluating the permissions of a `GrantSnapshot` again."""

    # the identity, with its user as it is in the database now; None if the user no longer exists
    identity: Identity | None
    # for each subscription, its query; None if it would be refused
    queries: list[AuthorizedQuery | ProjectCodeFailed | None]
    # for each membership, its grant; None if joining would be refused
    room_grants: list[RoomGrant | ProjectCodeFailed | None]


async def evaluate_again(snapshot: GrantSnapshot) -> FreshGrants:
    """Evaluate permissions as they are now, in worker threads.

    Each permission is evaluated in a call of its own, which counts for the owner of the task and
    for the collection or the declaration of rooms, so that slow permissions get no more than fair
    shares. Raises the exceptions of the database.
    """
    identity, user = snapshot.identity, snapshot.identity.user
    if user is not None:
        user = await run_in_threadpool(refresh_user, user)
        if user is None:
            return FreshGrants(None, [], [])
        identity = replace(identity, user=user)
    fresh = FreshGrants(identity, [], [])
    limits = conf.limits
    for subscription in snapshot.subscriptions:
        rebuild = partial(rebuild_query, limits, subscription.request.serialized, identity)
        stream = _stream(subscription.collection)
        fresh.queries.append(await run_for_subject(stream, _result_or_failure, rebuild))
    for membership in snapshot.memberships:
        room = membership.grant.room
        grant = partial(room.grant, identity, membership.key[1])
        if room.has_custom_permission:
            fresh.room_grants.append(await run_for_subject(room, _result_or_failure, grant))
        else:
            fresh.room_grants.append(grant())
    return fresh


def are_unchanged(
    queries: list[tuple[Subscription, AuthorizedQuery | ProjectCodeFailed | None]],
    room_grants: list[tuple[RoomMembership, RoomGrant | ProjectCodeFailed | None]],
) -> bool:
    """Return whether permissions allow the same as before; False if one raised."""
    return all(
        isinstance(query, AuthorizedQuery)
        and allow_the_same(subscription.query, query, subscription.collection)
        for subscription, query in queries
    ) and all(membership.grant == grant for membership, grant in room_grants)


def _stream(collection: str) -> str | None:
    try:
        return registry.get(collection).stream
    except UnknownCollection:
        return None


def _result_or_failure(evaluate: Callable[[], T]) -> T | ProjectCodeFailed:
    try:
        return evaluate()
    except ProjectCodeFailed as failure:
        return failure
