"""Reauthorization: evaluates permissions of a connection again, when they may have changed.

The connection's subscriptions and rooms are suspended immediately. If all permissions are still the
same, they continue where they were stopped, so that nothing is lost. Otherwise the connection is
closed with code 4201, and its client reconnects and fetches everything again. If a permission
raises an exception, only the subscription or room that it is for ends, with an error.

Rooms are evaluated first, and continue while subscriptions are still evaluated. The first
permission that has changed closes the connection. If permissions may have changed again during the
evaluation, it is repeated; because clients can cause that, only for a limited time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from django.db import Error as DatabaseFailure

from ..delivery.query import AuthorizedQuery
from ..delivery.subscription import Subscription
from ..delivery.topics import TopicManager
from ..identity import Identity
from ..rooms.local_room import RoomMembership
from ..rooms.room_manager import RoomManager
from ..transport.connection import Connection
from ..utils.concurrency import set_owner
from ..utils.project_code import ProjectCodeFailed
from ..utils.repeated_log import log_repeated
from ..wire.codes import CloseCode
from .grants import (
    allows_the_same,
    evaluate_room,
    evaluate_subscription,
    follows_changes,
    refresh_identity,
)

logger = logging.getLogger(__name__)

# a connection is closed if its permissions may have changed again during this many evaluations,
# and during this number of seconds
MAX_EVALUATIONS = 10
MAX_SECONDS = 10.0


class _Unacceptable(Exception):
    """The connection must be closed with a code."""

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code)
        self.code = code


class Reauthorizer:
    """Reauthorizes connections, each in its own task. Each hub has one."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        topics: TopicManager,
        rooms: RoomManager,
        end_membership: Callable[[RoomMembership], None],
    ) -> None:
        self._loop = loop
        self._topics = topics
        self._rooms = rooms
        # ends a membership whose permission failed
        self._end_membership = end_membership
        # tasks that run, by connection
        self._tasks: dict[Connection, asyncio.Task[None]] = {}

    def request(self, connections: Iterable[Connection]) -> None:
        """Suspend connections, and reauthorize them in tasks."""
        for connection in list(connections):
            connection.permissions_version += 1
            self._rooms.suspend(connection)
            if connection in self._tasks:
                continue  # its task notices the new version
            self._topics.suspend(connection)
            self._tasks[connection] = self._loop.create_task(self._run(connection))

    def cancel(self, connection: Connection) -> None:
        """Stop working for a connection that was closed."""
        task = self._tasks.pop(connection, None)
        if task is not None:
            task.cancel()

    def is_running(self, connection: Connection) -> bool:
        """Return whether a connection is being reauthorized."""
        return connection in self._tasks

    async def wait(self, connection: Connection) -> None:
        """Wait until a connection is no longer being reauthorized."""
        while (task := self._tasks.get(connection)) is not None:
            await asyncio.wait({task})

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
            if self._tasks.get(connection) is asyncio.current_task():
                del self._tasks[connection]

    async def _reauthorize(self, connection: Connection) -> None:
        evaluated: dict[Subscription, AuthorizedQuery] = {}
        started_at, count = self._loop.time(), 1
        try:
            while not await self._evaluate(connection, evaluated):
                if count >= MAX_EVALUATIONS and self._loop.time() - started_at >= MAX_SECONDS:
                    text = "Connection %s: its permissions changed too often."
                    log_repeated(logger, logging.WARNING, text, connection.id, client=connection.id)
                    raise _Unacceptable(CloseCode.PERMISSIONS_CHANGED)
                count += 1
        except _Unacceptable as reason:
            connection.close(reason.code)
        except DatabaseFailure as error:
            text, id = "Connection %s: permissions could not be evaluated: %r", connection.id
            log_repeated(logger, logging.WARNING, text, id, error, client=id)
            connection.close(CloseCode.UNAVAILABLE)

    async def _evaluate(
        self, connection: Connection, evaluated: dict[Subscription, AuthorizedQuery]
    ) -> bool:
        """Evaluate all permissions, and resume what is suspended.

        Returns False, without evaluating the others, if they may have changed since the beginning.
        ``evaluated`` are the subscriptions of earlier calls, with their new queries.
        """
        version, known = connection.permissions_version, connection.identity
        if known is None:
            return True
        identity = await refresh_identity(known)
        if identity is None:
            raise _Unacceptable(CloseCode.BAD_CREDENTIAL)
        if connection.permissions_version != version:
            return False
        if connection.identity is known:
            connection.identity = identity
        elif connection.identity is not None:
            # a renewed credential, which no permission distinguishes from the last one
            identity = connection.identity = replace(connection.identity, user=identity.user)
        if not await self._evaluate_rooms(connection, identity, version):
            return False
        return await self._evaluate_subscriptions(connection, identity, version, evaluated)

    async def _evaluate_rooms(
        self, connection: Connection, identity: Identity, version: int
    ) -> bool:
        for membership in self._rooms.memberships(connection):
            grant = await evaluate_room(membership, identity)
            if membership.has_ended:
                pass
            elif isinstance(grant, ProjectCodeFailed):
                grant.log()
                self._end_membership(membership)
            elif grant != membership.grant:
                raise _Unacceptable(CloseCode.PERMISSIONS_CHANGED)
            if connection.permissions_version != version:
                return False
        self._rooms.resume(connection)
        return True

    async def _evaluate_subscriptions(
        self,
        connection: Connection,
        identity: Identity,
        version: int,
        evaluated: dict[Subscription, AuthorizedQuery],
    ) -> bool:
        self._topics.suspend(connection)  # those that were added meanwhile
        key_sets = self._topics.key_sets
        # beginning with those that were not evaluated yet, or least recently
        new = [sub for sub in self._topics.subscriptions(connection) if sub not in evaluated]
        for subscription in (*new, *evaluated):
            if not subscription.is_attached:
                continue
            query = await evaluate_subscription(subscription, identity, key_sets)
            evaluated.pop(subscription, None)
            if not subscription.is_attached:
                pass
            elif isinstance(query, ProjectCodeFailed):
                query.log()
                self._topics.end_with_error(subscription)
            elif query is None or not (
                allows_the_same(subscription, query) or follows_changes(subscription, query)
            ):
                raise _Unacceptable(CloseCode.PERMISSIONS_CHANGED)
            else:
                evaluated[subscription] = query
            if connection.permissions_version != version:
                return False
        for subscription, query in evaluated.items():
            if subscription.is_attached:
                subscription.permissions_version = version
                same = allows_the_same(subscription, query)
                self._topics.resume(subscription, query, same=same)
        return True
