"""When rights change: what a connection watches is frozen at once, and thaws or ends.

A subscription whose scope is still the same goes on from where it stood, nothing lost. One that
may see something else ends the connection with 4201: its client comes back and fetches afresh.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django.db import Error as DatabaseFailure

from ..auth.users import refresh_user, same_user
from ..conf import conf
from ..declarations.room import RoomGrant
from ..delivery.catchup import flush_buffered
from ..delivery.query import rebuild_query
from ..delivery.table import AuthorizedQuery, CatchUpPlan, Subscription
from ..identity import Identity
from ..log.cursor import Position
from ..rooms.local_room import RoomMembership
from ..utils.concurrency import run_in_threadpool
from ..wire.codes import CloseCode

if TYPE_CHECKING:
    from ..transport.connection import Connection
    from .hub import Hub

logger = logging.getLogger(__name__)


def suspend(hub: Hub, connection: Connection) -> None:
    """Tell the connection nothing more of any collection. At once: not a byte follows.

    Each subscription keeps how it goes on from where it is. Again for what came meanwhile.
    """
    for subscription in connection.subscriptions.values():
        if subscription.catchup_task is not None:
            subscription.catchup_task.cancel()
            subscription.catchup_task = None
        feed = hub.topics.tailers.get(subscription.collection)
        table = hub.topics.topics[subscription.collection].table
        if feed is None:
            # what a snapshot held back follows it, should that begin anew: some of it was shown
            subscription.buffered = subscription.buffered or []
            table.add(subscription)
        else:
            table.discard(subscription)
            seq = (
                subscription.pending_row_checks[0] - 1
                if subscription.pending_row_checks
                else feed.seq
            )
            subscription.plan = subscription.plan or CatchUpPlan(Position(feed.epoch, seq))
            subscription.pending_row_checks = None


async def reauthorize(hub: Hub, connection: Connection) -> None:
    """Ask anew what the identity may see; go on where that is the same, else close."""
    while True:
        suspend(hub, connection)
        if connection.identity is None:
            return
        rights, look = (
            connection.permissions_version,
            GrantSnapshot.at(connection, connection.identity),
        )
        try:
            fresh, views, grants = await run_in_threadpool(_ask, look)
        except DatabaseFailure as error:
            logger.warning("Rights could not be looked at: %r", error)
            connection.close(CloseCode.UNAVAILABLE)
            return
        except Exception:
            logger.exception("A permission failed.")
            connection.close(CloseCode.INTERNAL_ERROR)
            return
        if fresh is None:
            connection.close(CloseCode.BAD_CREDENTIAL)
            return
        now = (
            connection.identity,
            connection.permissions_version,
            list(connection.subscriptions.values()),
        )
        if now == (look.identity, rights, look.subscriptions):
            break  # else something changed again while we asked
    connection.identity = fresh
    asked = list(zip(look.subscriptions, views, strict=True))
    sitting = list(connection.rooms.values())
    seats = zip(look.seats, grants, strict=True)
    if not _same(asked, [(seat, grant) for seat, grant in seats if seat in sitting]):
        connection.close(CloseCode.PERMISSIONS_CHANGED)
        return
    for subscription, view in asked:
        assert view is not None
        subscription.query, subscription.permissions_version = view, rights
        if subscription.plan is not None:
            hub.start(subscription, subscription.plan)
        else:
            flush_buffered(subscription, hub.topics.topics[subscription.collection])


@dataclass(frozen=True, slots=True, eq=False)
class GrantSnapshot:
    """A connection and what it was granted, as of one moment."""

    connection: Connection
    identity: Identity
    subscriptions: list[Subscription]
    seats: list[RoomMembership]

    @classmethod
    def at(cls, connection: Connection, identity: Identity) -> GrantSnapshot:
        """As of now."""
        seats = [
            seat for seat in connection.rooms.values() if seat.grant.room.has_custom_permission
        ]
        return cls(connection, identity, list(connection.subscriptions.values()), seats)


def find_changed_grants(looks: Iterable[GrantSnapshot]) -> list[Connection]:
    """Those who would not be granted the same now. In a worker thread; raises database errors.

    For connections that are new: what changed between their coming and the first look at their
    user's rights shows nowhere else, where no signal told of it.
    """
    return [look.connection for look in looks if not _holds(look)]


def _holds(look: GrantSnapshot) -> bool:
    try:
        fresh, views, grants = _ask(look)
    except DatabaseFailure:
        raise
    except Exception:
        return False  # asked again, it closes the connection
    return (
        fresh is not None
        and same_user(fresh.user, look.identity.user)
        and _same(
            list(zip(look.subscriptions, views, strict=True)),
            list(zip(look.seats, grants, strict=True)),
        )
    )


def _same(
    asked: list[tuple[Subscription, AuthorizedQuery | None]],
    granted: list[tuple[RoomMembership, RoomGrant | None]],
) -> bool:
    return all(view is not None and view.scope == s.query.scope for s, view in asked) and all(
        seat.grant == grant for seat, grant in granted
    )


def _ask(
    look: GrantSnapshot,
) -> tuple[Identity | None, list[AuthorizedQuery | None], list[RoomGrant | None]]:
    """The identity as it is now, None where its user is gone, and what it would be granted."""
    identity, user = look.identity, look.identity.user
    if user is not None:
        user = refresh_user(user)
        if user is None:
            return None, [], []
        identity = replace(identity, user=user)
    limits = conf.limits
    views = [rebuild_query(limits, each.request, identity) for each in look.subscriptions]
    return identity, views, [seat.grant.room.grant(identity, seat.key[1]) for seat in look.seats]
