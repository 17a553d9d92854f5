"""Reauthorization: evaluates permissions of a connection again, when they may have changed.

The connection's subscriptions are suspended immediately. If all permissions are still the same,
the subscriptions continue where they were stopped, so that no event is lost. Otherwise the
connection is closed with code 4201, and its client reconnects and fetches everything again. If a
permission raises an exception, only the subscription or room that it is for ends, with an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from django.db import Error as DatabaseFailure

from ..auth.users import refresh_user, same_user
from ..conf import conf
from ..declarations.room import RoomGrant
from ..delivery.query import AuthorizedQuery, allow_the_same, rebuild_query
from ..delivery.subscription import Subscription
from ..delivery.topics import TopicManager
from ..identity import Identity
from ..rooms.local_room import RoomMembership
from ..rooms.room_manager import RoomManager
from ..transport.connection import Connection
from ..utils.concurrency import run_in_threadpool, set_owner
from ..utils.project_code import ProjectCodeFailed
from ..wire.codes import CloseCode

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class GrantSnapshot:
    """A connection's subscriptions and rooms at one moment, with the permissions they have."""

    connection: Connection
    identity: Identity
    # `Connection.permissions_version` at that moment
    permissions_version: int
    subscriptions: list[Subscription]
    # memberships of rooms whose permission the project has written
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


class Reauthorizer:
    """Reauthorizes connections, each in its own task. Each hub has one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, topics: TopicManager, rooms: RoomManager
    ) -> None:
        self._loop = loop
        self._topics = topics
        self._rooms = rooms
        # tasks that run, by connection
        self._tasks: dict[Connection, asyncio.Task[None]] = {}

    def request(self, connections: Iterable[Connection]) -> None:
        """Suspend connections, and reauthorize them in tasks."""
        for connection in list(connections):
            connection.permissions_version += 1
            if connection in self._tasks:
                continue  # its task notices the new version
            self._topics.suspend(connection)
            self._tasks[connection] = self._loop.create_task(self._run(connection))

    def is_running(self, connection: Connection) -> bool:
        """Return whether a connection is being reauthorized."""
        return connection in self._tasks

    async def wait(self, connection: Connection) -> None:
        """Wait until a connection is no longer being reauthorized."""
        while (task := self._tasks.get(connection)) is not None:
            await asyncio.wait({task})

    def snapshot(self, connection: Connection, identity: Identity) -> GrantSnapshot:
        """Return a connection's current subscriptions and rooms."""
        return GrantSnapshot(
            connection,
            identity,
            connection.permissions_version,
            self._topics.subscriptions(connection),
            [
                membership
                for membership in self._rooms.memberships(connection)
                if membership.grant.room.has_custom_permission
            ],
        )

    async def _run(self, connection: Connection) -> None:
        set_owner(connection.owner)
        try:
            await self._reauthorize(connection)
        except Exception:
            logger.exception("A connection could not be reauthorized.")
            connection.close(CloseCode.INTERNAL_ERROR)
        finally:
            # done in the iteration of the event loop in which the subscriptions were resumed, so
            # that a later change starts a new task
            del self._tasks[connection]

    async def _reauthorize(self, connection: Connection) -> None:
        while True:
            self._topics.suspend(connection)
            if connection.identity is None:
                return
            snapshot = self.snapshot(connection, connection.identity)
            try:
                fresh = await run_in_threadpool(_evaluate_again, snapshot)
            except DatabaseFailure as error:
                logger.warning("Permissions could not be evaluated: %r", error)
                connection.close(CloseCode.UNAVAILABLE)
                return
            if fresh.identity is None:
                connection.close(CloseCode.BAD_CREDENTIAL)
                return
            if (
                connection.identity == snapshot.identity
                and connection.permissions_version == snapshot.permissions_version
                and self._topics.subscriptions(connection) == snapshot.subscriptions
            ):
                break  # nothing has changed during the evaluation
        connection.identity = fresh.identity
        still_joined = self._rooms.memberships(connection)
        room_grants = [
            (membership, grant)
            for membership, grant in zip(snapshot.memberships, fresh.room_grants, strict=True)
            if membership in still_joined
        ]
        queries = list(zip(snapshot.subscriptions, fresh.queries, strict=True))
        for subscription, query in queries:
            if isinstance(query, ProjectCodeFailed):
                query.log()
                self._topics.end_with_error(subscription)
        for membership, grant in room_grants:
            if isinstance(grant, ProjectCodeFailed):
                grant.log()
                self._rooms.end_with_error(membership)
        if not _are_unchanged(
            [pair for pair in queries if not isinstance(pair[1], ProjectCodeFailed)],
            [pair for pair in room_grants if not isinstance(pair[1], ProjectCodeFailed)],
        ):
            connection.close(CloseCode.PERMISSIONS_CHANGED)
            return
        for subscription, query in queries:
            if isinstance(query, AuthorizedQuery):
                subscription.query = query
                subscription.permissions_version = snapshot.permissions_version
                self._topics.resume(subscription)


def find_changed_grants(snapshots: Iterable[GrantSnapshot]) -> list[Connection]:
    """Return the connections for which permissions are different now, or cannot be evaluated.

    `maintenance` calls this for new connections. Their permissions may have changed after they
    were evaluated, but before the user's fingerprint was read for the first time, so that the
    fingerprint does not show the change. Raises the exceptions of the database. Uses the ORM, so
    it must not be called in an event loop.
    """
    return [snapshot.connection for snapshot in snapshots if not _is_unchanged(snapshot)]


def _is_unchanged(snapshot: GrantSnapshot) -> bool:
    fresh = _evaluate_again(snapshot)
    return (
        fresh.identity is not None
        and same_user(fresh.identity.user, snapshot.identity.user)
        and _are_unchanged(
            list(zip(snapshot.subscriptions, fresh.queries, strict=True)),
            list(zip(snapshot.memberships, fresh.room_grants, strict=True)),
        )
    )


def _are_unchanged(
    queries: list[tuple[Subscription, AuthorizedQuery | ProjectCodeFailed | None]],
    room_grants: list[tuple[RoomMembership, RoomGrant | ProjectCodeFailed | None]],
) -> bool:
    return all(
        isinstance(query, AuthorizedQuery)
        and allow_the_same(subscription.query, query, subscription.collection)
        for subscription, query in queries
    ) and all(membership.grant == grant for membership, grant in room_grants)


def _evaluate_again(snapshot: GrantSnapshot) -> FreshGrants:
    """Evaluate permissions as they are now.

    Uses the ORM, so it must not be called in an event loop.
    """
    identity, user = snapshot.identity, snapshot.identity.user
    if user is not None:
        user = refresh_user(user)
        if user is None:
            return FreshGrants(None, [], [])
        identity = replace(identity, user=user)
    limits = conf.limits
    return FreshGrants(
        identity,
        [
            _result_or_failure(
                partial(rebuild_query, limits, subscription.request.serialized, identity)
            )
            for subscription in snapshot.subscriptions
        ],
        [
            _result_or_failure(partial(membership.grant.room.grant, identity, membership.key[1]))
            for membership in snapshot.memberships
        ],
    )


def _result_or_failure(evaluate: Callable[[], T]) -> T | ProjectCodeFailed:
    try:
        return evaluate()
    except ProjectCodeFailed as failure:
        return failure
