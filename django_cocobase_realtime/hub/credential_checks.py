"""Regular checks of all connections: whether credentials are valid, and permissions the same.

Signals do both immediately, but changes by other programs send no signals. Each authenticator is
asked in a task and a thread of its own, so that neither clients nor another authenticator can
delay the moment at which a revoked connection is closed. An identity that cannot be checked does
not prevent the checks of others: its connection is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any

from ..auth import backends
from ..auth.users import (
    Fingerprint,
    find_users,
    is_django_user,
    permission_fingerprints,
    same_user,
)
from ..conf import conf
from ..delivery.topics import TopicManager
from ..identity import AccessScope, Identity
from ..rooms.room_manager import RoomManager
from ..transport.connection import Connection
from ..utils.concurrency import run_check
from ..wire.codes import CloseCode
from .reauthorization import Reauthorizer
from .rechecks import Rechecks

logger = logging.getLogger(__name__)

# `Identity.credential`, and what may differ between identities with the same one: the project, the
# user, the scope, and the items of `Identity.private`
CredentialKey = tuple[str, str, str | None, AccessScope, tuple[tuple[str, str], ...]]

Check = Callable[[], Coroutine[Any, Any, None]]

# name of the check of permissions; the others have the paths of the authenticators
PERMISSIONS = "permissions"


class CredentialChecks:
    """Checks the connections of a hub every ``REVOCATION_POLL`` seconds."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connections: Mapping[str, Connection],
        topics: TopicManager,
        rooms: RoomManager,
        reauthorizer: Reauthorizer,
    ) -> None:
        self._loop = loop
        self._connections = connections
        self._reauthorizer = reauthorizer
        self._rechecks = Rechecks(loop, topics, rooms, reauthorizer)
        # fingerprints of users' permissions, by primary key, as of the last round
        self._fingerprints: dict[Any, Fingerprint] = {}
        # the last check with each name
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Check connections until the task is cancelled."""
        try:
            while True:
                await asyncio.sleep(conf.revocation_poll)
                self._start_checks()
        finally:
            self._rechecks.stop()
            for task in self._tasks.values():
                task.cancel()

    def _start_checks(self) -> None:
        by_connection: dict[Connection, Identity] = {}
        identities: dict[CredentialKey, Identity] = {}
        for connection in list(self._connections.values()):
            identity = connection.identity
            if identity is None:
                continue
            key = _key(identity)
            if key is None:
                connection.close(CloseCode.INTERNAL_ERROR)
                continue
            by_connection[connection] = identities[key] = identity
        for path in conf.authenticators:
            self._start(path, partial(self._close_ended, path, identities))
        self._start(PERMISSIONS, partial(self._check_permissions, by_connection))

    def _start(self, name: str, check: Check) -> None:
        """Start a check, unless the last one with that name still runs."""
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = self._loop.create_task(self._run_check(name, check))
        else:
            logger.warning("The check %s takes longer than REVOCATION_POLL.", name)

    async def _run_check(self, name: str, check: Check) -> None:
        try:
            await check()
        except Exception as error:
            logger.warning("Credentials could not be checked (%s): %r", name, error)

    async def _close_ended(self, path: str, identities: Mapping[CredentialKey, Identity]) -> None:
        """Close the connections whose credentials an authenticator no longer accepts.

        Those whose credentials prove another identity now are closed so that they reconnect.
        """
        if not identities:
            return
        codes = await run_check(path, _find_ended, path, identities)
        if not codes:
            return
        for connection in list(self._connections.values()):
            if connection.identity is not None:
                key = _key(connection.identity)
                code = None if key is None else codes.get(key)
                if code is not None:
                    connection.close(code)

    async def _check_permissions(self, by_connection: Mapping[Connection, Identity]) -> None:
        """Reauthorize the connections of users whose permissions have changed."""
        identities = list({id(i): i for i in by_connection.values()}.values())
        last = self._fingerprints
        new = {
            connection: identity
            for connection, identity in self._rechecks.find_new(by_connection).items()
            if identity.fingerprint is not None
        }
        current, unchanged = (
            await run_check(PERMISSIONS, _read_fingerprints, identities, list(new.values()))
            if identities
            else ({}, frozenset())
        )
        self._fingerprints = current
        changed = {pk for pk, value in current.items() if last.get(pk, value) != value}
        self._reauthorizer.request(
            connection
            for connection, identity in by_connection.items()
            if connection.identity is identity and _user_pk(identity) in changed
        )
        self._rechecks.start(
            {c: identity for c, identity in by_connection.items() if c.id in self._connections},
            {connection for connection, identity in new.items() if id(identity) in unchanged},
        )


def _key(identity: Identity) -> CredentialKey | None:
    """Return what distinguishes identities; None if an attribute has an unusable type."""
    try:
        private = tuple(sorted(identity.private.items()))
        key = identity.credential, identity.project, identity.user_key, identity.scope, private
        hash(key)
    except Exception as error:  # an authenticator of the project may return anything
        logger.error("A connection is closed, because its identity cannot be checked: %r", error)
        return None
    return key


def _user_pk(identity: Identity) -> Any:
    """Return the primary key of the Django user, as in fingerprints, or None."""
    return identity.user.pk if is_django_user(identity.user) else None


def _read_fingerprints(
    identities: Collection[Identity], new: Collection[Identity]
) -> tuple[dict[Any, Fingerprint], frozenset[int]]:
    """Return the fingerprints of users, and which of the new identities are the same as then.

    These are the ``id()`` of those whose user and whose fingerprint did not change since the
    login. Uses the ORM.
    """
    current = permission_fingerprints(identities)
    same = [i for i in new if current.get(_user_pk(i)) == i.fingerprint]
    users = find_users(same)
    return current, frozenset(
        id(identity) for identity in same if same_user(users.get(_user_pk(identity)), identity.user)
    )


def _find_ended(
    path: str, identities: Mapping[CredentialKey, Identity]
) -> dict[CredentialKey, CloseCode]:
    """Return the credentials that an authenticator does not accept for their identities any more.

    The values are the codes with which the connections are closed. Authenticators return
    `Identity.credential`. Several identities may have the same one, for example tokens from before
    and after a password change, so each of them is passed in a call of its own. Uses the ORM, so it
    must not be called in an event loop.
    """
    codes: dict[CredentialKey, CloseCode] = {}
    remaining = dict.fromkeys(identities)
    while remaining:
        by_name: dict[str, CredentialKey] = {}
        for key in remaining:
            by_name.setdefault(key[0], key)
        batch = [identities[key] for key in by_name.values()]
        changed, revoked = backends.find_changed(path, batch), backends.find_revoked(path, batch)
        for name, key in by_name.items():
            if name in revoked:
                codes[key] = CloseCode.BAD_CREDENTIAL
            elif name in changed:
                codes[key] = CloseCode.PERMISSIONS_CHANGED
            del remaining[key]
    return codes
