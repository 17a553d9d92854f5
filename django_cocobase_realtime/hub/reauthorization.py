"""Determines again what a connection may see, when permissions may have changed.

Its subscriptions are suspended at once. Those whose scope is still the same continue from where
they were, without a loss. If anything the connection holds would be granted differently now, it is
closed with code 4201: its client comes back and fetches everything again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from django.db import Error as DatabaseFailure

from ..auth.users import refresh_user, same_user
from ..conf import conf
from ..declarations.room import RoomGrant
from ..delivery.query import AuthorizedQuery, rebuild_query
from ..delivery.subscription import Subscription
from ..delivery.topics import TopicManager
from ..identity import Identity
from ..rooms.local_room import RoomMembership
from ..rooms.room_manager import RoomManager
from ..transport.connection import Connection
from ..utils.concurrency import run_in_threadpool
from ..wire.codes import CloseCode

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class GrantSnapshot:
    """What a connection held at one moment."""

    connection: Connection
    identity: Identity
    permissions_version: int
    subscriptions: list[Subscription]
    # memberships of rooms with a permission of the project's own
    memberships: list[RoomMembership]


@dataclass(frozen=True, slots=True)
class FreshGrants:
    """What would be granted now for each item of a `GrantSnapshot`; None for a refusal."""

    # the identity with its user as the database has it now; None if the user is gone
    identity: Identity | None
    queries: list[AuthorizedQuery | None]
    room_grants: list[RoomGrant | None]


class Reauthorizer:
    """Reauthorizes connections, each in a task of its own. One per hub."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, topics: TopicManager, rooms: RoomManager
    ) -> None:
        self._loop = loop
        self._topics = topics
        self._rooms = rooms
        self._tasks: dict[Connection, asyncio.Task[None]] = {}

    def request(self, connections: Iterable[Connection]) -> None:
        """Show these connections nothing more until their permissions are known again."""
        for connection in list(connections):
            connection.permissions_version += 1
            if connection in self._tasks:
                continue  # its task notices the new version
            self._topics.suspend(connection)
            self._tasks[connection] = self._loop.create_task(self._run(connection))

    def is_running(self, connection: Connection) -> bool:
        """Return whether a connection's permissions are being determined."""
        return connection in self._tasks

    async def wait(self, connection: Connection) -> None:
        """Wait until a connection's permissions are known."""
        while (task := self._tasks.get(connection)) is not None:
            await asyncio.wait({task})

    def snapshot(self, connection: Connection, identity: Identity) -> GrantSnapshot:
        """Return what a connection holds now."""
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
        try:
            await self._reauthorize(connection)
        except Exception:
            logger.exception("Permissions could not be determined.")
            connection.close(CloseCode.INTERNAL_ERROR)
        finally:
            # in the iteration of the loop in which the permissions became known: what changes
            # from now on starts a new task
            del self._tasks[connection]

    async def _reauthorize(self, connection: Connection) -> None:
        while True:
            self._topics.suspend(connection)
            if connection.identity is None:
                return
            held = self.snapshot(connection, connection.identity)
            try:
                fresh = await run_in_threadpool(_grants_now, held)
            except DatabaseFailure as error:
                logger.warning("Permissions could not be determined: %r", error)
                connection.close(CloseCode.UNAVAILABLE)
                return
            except Exception:
                logger.exception("A permission failed.")
                connection.close(CloseCode.INTERNAL_ERROR)
                return
            if fresh.identity is None:
                connection.close(CloseCode.BAD_CREDENTIAL)
                return
            if (
                connection.identity == held.identity
                and connection.permissions_version == held.permissions_version
                and self._topics.subscriptions(connection) == held.subscriptions
            ):
                break  # otherwise something changed during the calls: ask again
        connection.identity = fresh.identity
        still_joined = self._rooms.memberships(connection)
        room_grants = [
            (membership, grant)
            for membership, grant in zip(held.memberships, fresh.room_grants, strict=True)
            if membership in still_joined
        ]
        queries = list(zip(held.subscriptions, fresh.queries, strict=True))
        if not _are_unchanged(queries, room_grants):
            connection.close(CloseCode.PERMISSIONS_CHANGED)
            return
        for subscription, query in queries:
            assert query is not None
            subscription.query = query
            subscription.permissions_version = held.permissions_version
            self._topics.resume(subscription)


def find_changed_grants(snapshots: Iterable[GrantSnapshot]) -> list[Connection]:
    """Return the connections that would be granted something different now.

    For new connections: a change between their grants and the first look at their user's
    permissions shows nowhere else, if no signal reported it. Raises database errors. May use the
    ORM: not for event loops.
    """
    return [held.connection for held in snapshots if not _is_unchanged(held)]


def _is_unchanged(held: GrantSnapshot) -> bool:
    try:
        fresh = _grants_now(held)
    except DatabaseFailure:
        raise
    except Exception:
        return False  # reauthorizing it reports the error and closes it
    return (
        fresh.identity is not None
        and same_user(fresh.identity.user, held.identity.user)
        and _are_unchanged(
            list(zip(held.subscriptions, fresh.queries, strict=True)),
            list(zip(held.memberships, fresh.room_grants, strict=True)),
        )
    )


def _are_unchanged(
    queries: list[tuple[Subscription, AuthorizedQuery | None]],
    room_grants: list[tuple[RoomMembership, RoomGrant | None]],
) -> bool:
    return all(
        query is not None and query.scope == subscription.query.scope
        for subscription, query in queries
    ) and all(membership.grant == grant for membership, grant in room_grants)


def _grants_now(held: GrantSnapshot) -> FreshGrants:
    """Determine what would be granted now. May use the ORM: not for event loops."""
    identity, user = held.identity, held.identity.user
    if user is not None:
        user = refresh_user(user)
        if user is None:
            return FreshGrants(None, [], [])
        identity = replace(identity, user=user)
    limits = conf.limits
    return FreshGrants(
        identity,
        [
            rebuild_query(limits, subscription.request.serialized, identity)
            for subscription in held.subscriptions
        ],
        [
            membership.grant.room.grant(identity, membership.key[1])
            for membership in held.memberships
        ],
    )
