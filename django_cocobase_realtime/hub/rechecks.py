"""Rechecks: evaluate the permissions of new connections once more, each in its own task.

Permissions may have changed after they were evaluated, but before the fingerprint of the user was
read for the first time, so that the fingerprint does not show the change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from django.db import Error as DatabaseFailure

from ..auth.users import same_user
from ..identity import Identity
from ..transport.connection import Connection
from ..utils.concurrency import set_owner
from .grants import GrantSnapshot, are_unchanged, evaluate_again
from .reauthorization import Reauthorizer

logger = logging.getLogger(__name__)


class Rechecks:
    """The rechecks of a hub. A connection has one at a time, whose work counts for its owner."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reauthorizer: Reauthorizer) -> None:
        self._loop = loop
        # reauthorizes connections whose permissions are different now
        self._reauthorizer = reauthorizer
        # the identity for which a connection was rechecked; it has a new one after each `auth`
        self._checked: dict[Connection, Identity] = {}
        # tasks that run, by connection
        self._tasks: dict[Connection, asyncio.Task[None]] = {}

    def start(self, identities: Mapping[Connection, Identity]) -> None:
        """Start the missing rechecks of all connections, and forget those that are closed.

        The fingerprints of their users must have been read after ``identities`` were collected.
        """
        self._checked = {c: known for c, known in self._checked.items() if c in identities}
        for connection in self._tasks.keys() - identities.keys():
            self._tasks.pop(connection).cancel()
        for connection, identity in identities.items():
            if (
                identity.user is not None
                and self._checked.get(connection) is not identity
                and connection not in self._tasks
                and not self._reauthorizer.is_running(connection)
            ):
                self._tasks[connection] = self._loop.create_task(self._run(connection, identity))

    def stop(self) -> None:
        """Cancel the rechecks that run."""
        for task in self._tasks.values():
            task.cancel()

    async def _run(self, connection: Connection, identity: Identity) -> None:
        set_owner(connection.owner.background())
        try:
            is_unchanged = await _is_unchanged(self._reauthorizer.snapshot(connection, identity))
        except DatabaseFailure as error:
            logger.warning("Permissions could not be checked: %r", error)
            return  # the next round tries again
        except Exception:
            logger.exception("Permissions could not be checked.")
            is_unchanged = False
        finally:
            if self._tasks.get(connection) is asyncio.current_task():
                del self._tasks[connection]
        if connection.identity is not identity:
            return
        self._checked[connection] = identity
        if not is_unchanged:
            self._reauthorizer.request([connection])


async def _is_unchanged(snapshot: GrantSnapshot) -> bool:
    fresh = await evaluate_again(snapshot)
    return (
        fresh.identity is not None
        and same_user(fresh.identity.user, snapshot.identity.user)
        and are_unchanged(
            list(zip(snapshot.subscriptions, fresh.queries, strict=True)),
            list(zip(snapshot.memberships, fresh.room_grants, strict=True)),
        )
    )
