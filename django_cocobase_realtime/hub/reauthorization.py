"""Reauthorization: evaluates permissions of a connection again, when they may have changed.

The connection's subscriptions are suspended immediately. If all permissions are still the same,
the subscriptions continue where they were stopped, so that no event is lost. Otherwise the
connection is closed with code 4201, and its client reconnects and fetches everything again. If a
permission raises an exception, only the subscription or room that it is for ends, with an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from django.db import Error as DatabaseFailure

from ..delivery.query import AuthorizedQuery
from ..delivery.topics import TopicManager
from ..identity import Identity
from ..rooms.room_manager import RoomManager
from ..transport.connection import Connection
from ..utils.concurrency import set_owner
from ..utils.project_code import ProjectCodeFailed
from ..wire.codes import CloseCode
from .grants import GrantSnapshot, are_unchanged, evaluate_again

logger = logging.getLogger(__name__)


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

    def snapshot(self, connection: Connection, identity: Identity) -> GrantSnapshot:
        """Return a connection's current subscriptions and rooms."""
        return GrantSnapshot(
            connection,
            identity,
            connection.permissions_version,
            self._topics.subscriptions(connection),
            self._rooms.memberships(connection),
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
            if self._tasks.get(connection) is asyncio.current_task():
                del self._tasks[connection]

    async def _reauthorize(self, connection: Connection) -> None:
        while True:
            self._topics.suspend(connection)
            if connection.identity is None:
                return
            snapshot = self.snapshot(connection, connection.identity)
            try:
                fresh = await evaluate_again(snapshot)
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
        if not are_unchanged(
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
