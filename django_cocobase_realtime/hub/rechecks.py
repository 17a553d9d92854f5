"""Rechecks: evaluate the permissions of new connections once more, each in its own task.

Permissions may have changed after they were evaluated, but before the fingerprint of the user was
read for the first time, so that the fingerprint does not show the change. If the fingerprint was
read at the login, before any permission was evaluated, it is only compared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from django.db import Error as DatabaseFailure

from ..auth.users import same_user
from ..delivery.topics import TopicManager
from ..identity import Identity
from ..rooms.room_manager import RoomManager
from ..transport.connection import Connection
from ..utils.concurrency import set_owner
from ..utils.repeated_log import log_repeated
from .grants import allows_the_same, evaluate_room, evaluate_subscription, refresh_identity
from .reauthorization import Reauthorizer

logger = logging.getLogger(__name__)


class Rechecks:
    """The rechecks of a hub. A connection has one at a time, whose work counts for its owner."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        topics: TopicManager,
        rooms: RoomManager,
        reauthorizer: Reauthorizer,
    ) -> None:
        self._loop = loop
        self._topics = topics
        self._rooms = rooms
        # reauthorizes connections whose permissions are different now
        self._reauthorizer = reauthorizer
        # the identity for which a connection was rechecked; it has a new one after each `auth`
        self._checked: dict[Connection, Identity] = {}
        # tasks that run, by connection
        self._tasks: dict[Connection, asyncio.Task[None]] = {}

    def find_new(self, identities: Mapping[Connection, Identity]) -> dict[Connection, Identity]:
        """Return the connections that need a recheck."""
        return {
            connection: identity
            for connection, identity in identities.items()
            if identity.user is not None and self._checked.get(connection) is not identity
        }

    def start(
        self, identities: Mapping[Connection, Identity], unchanged: Collection[Connection] = ()
    ) -> None:
        """Start the missing rechecks of all connections, and forget those that are closed.

        The fingerprints of their users must have been read after ``identities`` were collected.
        ``unchanged`` are those whose user is the same as at the login, also its permissions.
        """
        self._checked = {c: known for c, known in self._checked.items() if c in identities}
        for connection in self._tasks.keys() - identities.keys():
            self._tasks.pop(connection).cancel()
        for connection, identity in self.find_new(identities).items():
            if connection in self._tasks or self._reauthorizer.is_running(connection):
                continue
            if connection in unchanged:
                self._checked[connection] = identity
            else:
                self._tasks[connection] = self._loop.create_task(self._run(connection, identity))

    def stop(self) -> None:
        """Cancel the rechecks that run."""
        for task in self._tasks.values():
            task.cancel()

    async def _run(self, connection: Connection, identity: Identity) -> None:
        set_owner(connection.owner.background())
        try:
            is_unchanged = await self._is_unchanged(connection, identity)
        except DatabaseFailure as error:
            text, id = "Connection %s: permissions could not be checked: %r", connection.id
            log_repeated(logger, logging.WARNING, text, id, error, client=id)
            return  # the next round tries again
        except Exception:
            text, id = "Connection %s: permissions could not be checked.", connection.id
            log_repeated(logger, logging.ERROR, text, id, client=id, exc_info=True)
            is_unchanged = False
        finally:
            if self._tasks.get(connection) is asyncio.current_task():
                del self._tasks[connection]
        if connection.identity is not identity:
            return
        self._checked[connection] = identity
        if not is_unchanged:
            self._reauthorizer.request([connection])

    async def _is_unchanged(self, connection: Connection, identity: Identity) -> bool:
        """Return whether all permissions allow the same as before; False if one raised."""
        fresh = await refresh_identity(identity)
        if fresh is None or not same_user(fresh.user, identity.user):
            return False
        for membership in self._rooms.memberships(connection):
            if await evaluate_room(membership, fresh) != membership.grant:
                return False
        key_sets = self._topics.key_sets
        for subscription in self._topics.subscriptions(connection):
            query = await evaluate_subscription(subscription, fresh, key_sets)
            if not allows_the_same(subscription, query):
                return False
        return True
